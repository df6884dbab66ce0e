"""Flows one after the other."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mvae_fast.core.problem import LogDet, Trace
from mvae_fast.flows.base import arguments, check_cond, check_types


class SequentialFlow(nn.Module):
    r"""A chain of flows, run backwards and each in reverse for the inverse.

    .. math:: z' = g_n(\dots g_1(z))

    Takes `mvae_fast.FastCNF`, everything in `mvae_fast.flows` and any module of the same calling
    convention. ``cond`` goes to the flows with ``cond_dim`` > 0, each other argument to those whose
    ``forward`` takes it. State_dict keys are ``chain.i.*``, as those of FFJORD's class of this
    name.

    Args:
        flows: The flows, first first.

    Raises:
        ValueError: If there is none, or amortised ones differ in ``cond_dim``.

    Example:
        >>> import torch
        >>> from mvae_fast.flows import IAF, PlanarFlow
        >>> flow = SequentialFlow([PlanarFlow(2, cond_dim=3), IAF(2)])
        >>> z, logp = flow(torch.zeros(5, 2), torch.zeros(5, 1), cond=torch.zeros(5, 3))
        >>> z.shape, logp.shape
        (torch.Size([5, 2]), torch.Size([5, 1]))
    """

    def __init__(self, flows: Iterable[nn.Module]) -> None:
        super().__init__()
        self.chain = nn.ModuleList(flows)
        if not self.chain:
            raise ValueError("flows: got none, expected at least one")
        sizes = {_cond_dim(flow) for flow in self.chain} - {0}
        if len(sizes) > 1:
            raise ValueError(f"flows: got cond_dim {sorted(sizes)}, expected one size, or 0")
        self.cond_dim: int = sizes.pop() if sizes else 0

    def forward(
        self,
        z: Tensor,
        logp: Tensor | None = None,
        reverse: bool = False,
        *,
        cond: Tensor | None = None,
        generator: torch.Generator | None = None,
        trace: Trace | None = None,
        log_det: LogDet | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """As `mvae_fast.flows.Flow.forward`, through all flows; ``generator`` is the source of
        their noise, if any has some."""
        check_types(z, logp, reverse, cond)
        check_cond(cond, self.cond_dim, z.shape[0])
        for flow in reversed(self.chain) if reverse else self.chain:
            extra = arguments(flow, generator=generator, trace=trace, log_det=log_det)
            if _cond_dim(flow):
                extra["cond"] = cond
            if logp is None:
                z = flow(z, None, reverse=reverse, **extra)
            else:
                z, logp = flow(z, logp, reverse=reverse, **extra)
        return z if logp is None else (z, logp)


def _cond_dim(flow: nn.Module) -> int:
    return int(getattr(flow, "cond_dim", 0))
