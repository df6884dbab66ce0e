"""The net that gives the velocity ``f(t, z)`` of a continuous normalizing flow."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from mvae_fast.checks import boolean, integer, integers, one_of
from mvae_fast.core.nonlinearities import Nonlinearity
from mvae_fast.nets.activations import make_activation
from mvae_fast.nets.conv_layers import CONV_LAYERS, STRIDES
from mvae_fast.nets.layers import LINEAR_LAYERS, LayerType
from mvae_fast.nets.readable import Conditioned


class ODEnet(Conditioned):
    r"""A multilayer perceptron whose layers are conditioned on time.

    .. math:: y_0 = z, \quad a_l = G_l(t) \odot (W_l(t)\, y_{l-1}) + C_l(t), \quad
              y_l = \phi(a_l), \quad f(t, z) = a_L

    Constructor, ``forward`` and state_dict keys are those of FFJORD's ``ODEnet``.

    Args:
        hidden_dims: Widths of the hidden layers; may be empty (an affine field).
        input_shape: Shape of one state: ``(D,)``, or ``(C, H, W)`` for convolutions.
        strides: For convolutions one for every layer, of 1, 2 (half the size) and -2 (double).
        conv: Convolutional layers, which no engine knows: they go through torchdiffeq.
        layer_type: How the layers depend on time: ``"ignore"``, ``"concat"``, ``"concat_v2"``,
            ``"squash"``, ``"concatsquash"``, ``"concatcoord"``, ``"blend"`` or ``"hyper"``, as in
            FFJORD, or ``"scale"`` or ``"concatscale"``, those of PointFlow.
        nonlinearity: ``"softplus"``, ``"tanh"``, ``"relu"``, ``"elu"``, ``"swish"`` (whose slope is
            learned), ``"square"`` or ``"identity"``, as in FFJORD, or ``"gelu"``, ``"gelu_tanh"``
            (its approximation by tanh), ``"selu"``, ``"leaky_relu"`` (slope 0.01), ``"sigmoid"``,
            ``"sin"`` or ``"silu"`` (swish without a parameter); between the layers, none after the
            last.
        context_dim: C, the size of what each row of a batch is conditioned on; 0 for none. Every
            layer has a matrix V_l for it: ``a_l = G_l(t) * (W_l(t) y_{l-1} + V_l c) + C_l(t)``.
        num_squeeze: Times that a convolutional net turns 2x2 pixels into channels before its first
            layer, and back after its last. ``input_shape`` is the shape after.

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
        layer_type: LayerType = "concat",
        nonlinearity: Nonlinearity = "softplus",
        num_squeeze: int = 0,
        *,
        context_dim: int = 0,
    ) -> None:
        super().__init__()
        hidden = integers("hidden_dims", hidden_dims, 1)
        shape = integers("input_shape", input_shape, 1)
        boolean("conv", conv)
        one_of("layer_type", layer_type, LINEAR_LAYERS)
        integer("num_squeeze", num_squeeze, 0)
        if len(shape) != (3 if conv else 1):
            expected = "(C, H, W) for convolutions" if conv else "(D,) for linear layers"
            raise ValueError(f"input_shape: got {shape}, expected {expected}")
        self.context_dim = integer("context_dim", context_dim, 0)
        if context_dim and conv:
            raise ValueError(f"context_dim: got {context_dim}, expected 0 for convolutions")
        if num_squeeze and not conv:
            raise ValueError(
                f"num_squeeze: got {num_squeeze}, expected 0 for linear layers (conv=False)"
            )
        self.layer_type = layer_type
        self.nonlinearity = nonlinearity
        self.num_squeeze = num_squeeze
        self.widths: tuple[int, ...] = (shape[0], *hidden, shape[0])
        pairs = zip(self.widths[:-1], self.widths[1:], strict=True)
        if conv:
            convolution = CONV_LAYERS[layer_type]
            steps = _strides(strides, len(hidden) + 1)
            self.layers = nn.ModuleList(
                convolution(*pair, stride) for pair, stride in zip(pairs, steps, strict=True)
            )
        else:
            linear = LINEAR_LAYERS[layer_type]
            self.layers = nn.ModuleList(linear(*pair) for pair in pairs)
        if context_dim:
            self.context_layers = nn.ModuleList(
                nn.Linear(context_dim, m, bias=False) for m in self.widths[1:]
            )
        self.activation_fns = nn.ModuleList(make_activation(nonlinearity) for _ in hidden)

    def forward(self, t: Tensor, y: Tensor, context: Tensor | None = None) -> Tensor:
        """The velocity at time ``t`` (0-dim) and state ``y`` (B, D) or (B, C, H, W), like ``y``.

        ``context`` is (B, context_dim), and None where that is 0.
        """
        rows = self.rows_of(context)
        for _ in range(self.num_squeeze):
            y = F.pixel_unshuffle(y, 2)
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            y = layer(t, y, rows[index]) if rows else layer(t, y)
            if index < last:
                y = self.activation_fns[index](y)
        for _ in range(self.num_squeeze):
            y = F.pixel_shuffle(y, 2)
        return y

    if TYPE_CHECKING:
        __call__ = forward  # which nn.Module calls, and of which it says Any

    def rows_of(self, context: Tensor | None) -> tuple[Tensor, ...]:
        """What each row adds to each layer, (B, m_l); empty without a context.

        Raises:
            ValueError: If ``context`` is missing, or not wanted, or of another size.
        """
        self.check_context(context)
        return () if context is None else tuple(layer(context) for layer in self.context_layers)

    def extra_repr(self) -> str:
        return f"widths={self.widths}, layer_type={self.layer_type}, {self.nonlinearity}"


def _strides(strides: Sequence[int] | None, layers: int) -> tuple[int, ...]:
    if strides is None or len(strides) != layers or not set(strides) <= STRIDES.keys():
        raise ValueError(
            f"strides: got {strides!r}, expected {layers}, one for every layer, of 1, 2 and -2"
        )
    return tuple(strides)
