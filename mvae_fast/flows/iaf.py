"""Inverse autoregressive flows."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvae_fast.checks import integer, integers
from mvae_fast.flows.base import Flow

# Added to the gate's input: the gate starts near sigmoid(1) = 0.73, most of the state passes.
GATE_BIAS = 1.0


class MaskedLinear(nn.Linear):
    """A linear layer whose unit of degree n sees the inputs of lower (or equal) degree."""

    mask: Tensor

    def __init__(self, degrees_in: Tensor, degrees_out: Tensor, *, strict: bool) -> None:
        super().__init__(len(degrees_in), len(degrees_out))
        shifted = degrees_out - 1 if strict else degrees_out
        mask = shifted.unsqueeze(1) >= degrees_in
        # It follows from the sizes: a checkpoint need not hold it.
        self.register_buffer("mask", mask.to(self.weight.dtype), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to ``x`` (B, in)."""
        return F.linear(x, self.weight * self.mask, self.bias)


class MADE(nn.Module):
    r"""A masked network: output i depends on the inputs that come before i, and on ``cond``.

    Hidden units have degrees 0 to D - 1: one of degree n sees the first n inputs. Those of degree
    0 see ``cond`` alone, which is all that the first output may depend on.

    Args:
        dim: Size D of input and outputs.
        hidden: Widths of the hidden layers, with ELU after each; at least one.
        n_outputs: Outputs of size D.
        cond_dim: Size of ``cond``, which is added to the first hidden layer; 0 for none.
        backwards: The last input comes first.

    References:
        MADE: Masked Autoencoder for Distribution Estimation (Germain et al., 2015), eq. 8-9 and 12,
        https://arxiv.org/abs/1502.03509

    Example:
        >>> mean, gate = MADE(3, (16,), 2)(torch.zeros(5, 3), None)
        >>> mean.shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        dim: int,
        hidden: Sequence[int],
        n_outputs: int,
        cond_dim: int = 0,
        backwards: bool = False,
    ) -> None:
        super().__init__()
        hidden = integers("hidden", hidden, 1)
        if not hidden:
            raise ValueError("hidden: got (), expected at least one width")
        self.n_outputs = n_outputs
        #: Inputs in the order in which they come.
        self.order = list(range(dim))[:: -1 if backwards else 1]
        inputs = torch.tensor(self.order) + 1  # its own inverse, so degrees are places
        degrees = [inputs, *(torch.arange(width) % dim for width in hidden)]
        self.layers = nn.ModuleList(
            MaskedLinear(a, b, strict=False) for a, b in zip(degrees, degrees[1:], strict=False)
        )
        self.output = MaskedLinear(degrees[-1], inputs.repeat(n_outputs), strict=True)
        self.context = nn.Linear(cond_dim, hidden[0], bias=False) if cond_dim else None

    def forward(self, z: Tensor, cond: Tensor | None) -> tuple[Tensor, ...]:
        """The outputs, (B, D) each, of ``z`` (B, D) and ``cond`` (B, C)."""
        context = None if self.context is None else self.context(cond)
        for layer in self.layers:
            z = layer(z)
            if context is not None:
                z, context = z + context, None
            z = F.elu(z)
        return self.output(z).chunk(self.n_outputs, dim=1)


class IAF(Flow):
    r"""K inverse autoregressive flows, one after the other, each in the order opposite to the last.

    .. math:: z'_i = \sigma_i z_i + (1 - \sigma_i)\, m_i, \qquad \sigma = \mathrm{sigmoid}(s + 1),
              \qquad m_i, s_i \text{ functions of } z_{<i} \text{ and } c

    The log-determinant is :math:`\sum_i \log \sigma_i`. The inverse takes D sequential passes
    through every network, and divides by :math:`\sigma`: where the gate has closed to zero it is
    not finite.

    Args:
        dim: Size D of the state.
        n_flows: K.
        cond_dim: Size C of ``cond``, of which every network sees a linear function; 0 for none.
        hidden: Widths of the hidden layers of each network.

    Raises:
        ValueError: If a size does not fit.

    References:
        Improving Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016),
        eq. 12-14 and algorithm 1, https://arxiv.org/abs/1606.04934

    Example:
        >>> flow = IAF(3, n_flows=2, hidden=(16,))
        >>> z, logp = flow(torch.zeros(5, 3), torch.zeros(5, 1))
        >>> torch.allclose(flow(z, reverse=True), torch.zeros(5, 3), atol=1e-5)
        True
    """

    def __init__(
        self, dim: int, n_flows: int = 4, cond_dim: int = 0, *, hidden: Sequence[int] = (320, 320)
    ) -> None:
        super().__init__(dim, cond_dim)
        n_flows = integer("n_flows", n_flows, 1)
        self.flows = nn.ModuleList(
            MADE(self.dim, hidden, 2, self.cond_dim, backwards=k % 2 == 1) for k in range(n_flows)
        )

    def _move(self, z: Tensor, cond: Tensor | None, reverse: bool) -> tuple[Tensor, Tensor]:
        change = z.new_zeros(z.shape[0])
        if reverse:
            for made in reversed(self.flows):
                assert isinstance(made, MADE)
                z = _inverse(made, z, cond)
                change = change + F.logsigmoid(made(z, cond)[1] + GATE_BIAS).sum(1)
            return z, change
        for made in self.flows:
            mean, gate = made(z, cond)
            gate = gate + GATE_BIAS
            z = torch.sigmoid(gate) * z + torch.sigmoid(-gate) * mean
            change = change - F.logsigmoid(gate).sum(1)
        return z, change

    def extra_repr(self) -> str:
        return f"dim={self.dim}, n_flows={len(self.flows)}, cond_dim={self.cond_dim}"


def _inverse(made: MADE, z_out: Tensor, cond: Tensor | None) -> Tensor:
    z = torch.zeros_like(z_out)
    columns = torch.arange(z.shape[1], device=z.device)
    for i in made.order:
        # Right in column i, as those that come before i are.
        mean, gate = made(z, cond)
        gate = gate + GATE_BIAS
        solved = (z_out - torch.sigmoid(-gate) * mean) / torch.sigmoid(gate)
        z = torch.where(columns == i, solved, z)
    return z
