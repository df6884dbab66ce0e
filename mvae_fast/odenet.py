"""The net that gives the velocity ``f(t, z)`` of a continuous normalizing flow."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mvae_fast.layers import LINEAR_LAYERS
from mvae_fast.nonlinearities import make_activation

__all__ = ["ODEnet"]


class ODEnet(nn.Module):
    r"""A multilayer perceptron whose layers are conditioned on time.

    .. math:: y_0 = z, \quad a_l = G_l(t) \odot (W_l(t)\, y_{l-1}) + C_l(t), \quad
              y_l = \phi(a_l), \quad f(t, z) = a_L

    Constructor, ``forward`` and state_dict keys are those of FFJORD's ``ODEnet``.

    Args:
        hidden_dims: Widths of the hidden layers; may be empty (an affine field).
        input_shape: Shape of one state, ``(D,)``.
        strides: For convolutions only; must be None here.
        conv: Convolutional layers.
        layer_type: How the layers depend on time: ``"ignore"``, ``"concat"``, ``"concat_v2"``,
            ``"squash"``, ``"concatsquash"``, ``"concatcoord"``, ``"blend"`` or ``"hyper"``.
        nonlinearity: ``"softplus"``, ``"tanh"``, ``"relu"``, ``"elu"``, ``"swish"``, ``"square"``
            or ``"identity"``; between the layers, none after the last.
        num_squeeze: Space-to-depth steps, for convolutions only; must be 0 here.

    Raises:
        ValueError: If an argument is not one of the above.

    References:
        FFJORD: Free-form Continuous Dynamics for Scalable Reversible Generative Models
        (Grathwohl et al., 2019), https://arxiv.org/abs/1810.01367

    Example:
        >>> import torch
        >>> net = ODEnet((8,), (3,), layer_type="squash")
        >>> net(torch.tensor(0.5), torch.zeros(4, 3)).shape
        torch.Size([4, 3])
    """

    def __init__(
        self,
        hidden_dims: Sequence[int],
        input_shape: Sequence[int],
        strides: Sequence[int] | None = None,
        conv: bool = False,
        layer_type: str = "concat",
        nonlinearity: str = "softplus",
        num_squeeze: int = 0,
    ) -> None:
        super().__init__()
        if conv:
            raise ValueError("conv: got True, but only linear layers (conv=False) are available")
        if layer_type not in LINEAR_LAYERS:
            raise ValueError(
                f"layer_type: got {layer_type!r}, expected one of "
                f"{', '.join(map(repr, LINEAR_LAYERS))}"
            )
        if len(input_shape) != 1:
            raise ValueError(
                f"input_shape: got {tuple(input_shape)}, expected (D,) for linear layers"
            )
        if num_squeeze != 0:
            raise ValueError(
                f"num_squeeze: got {num_squeeze}, expected 0 for linear layers (conv=False)"
            )
        widths = (input_shape[0], *hidden_dims, input_shape[0])
        if min(widths) < 1:
            raise ValueError(f"hidden_dims and input_shape: got widths {widths}, expected all >= 1")

        self.layer_type = layer_type
        self.nonlinearity = nonlinearity
        self.num_squeeze = num_squeeze
        self.widths: tuple[int, ...] = tuple(int(width) for width in widths)
        layer_class = LINEAR_LAYERS[layer_type]
        self.layers = nn.ModuleList(
            layer_class(m_in, m_out)
            for m_in, m_out in zip(self.widths[:-1], self.widths[1:], strict=True)
        )
        self.activation_fns = nn.ModuleList(make_activation(nonlinearity) for _ in hidden_dims)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """The velocity at time ``t`` (0-dim) and state ``y`` (B, D): shape (B, D)."""
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            y = layer(t, y)
            if index < last:
                y = self.activation_fns[index](y)
        return y

    def extra_repr(self) -> str:
        return f"widths={self.widths}, layer_type={self.layer_type}, {self.nonlinearity}"
