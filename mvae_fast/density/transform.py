"""A flow as a ``torch.distributions.Transform``."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.distributions.transforms import Transform

from mvae_fast.checks import integer, tensor
from mvae_fast.density.rows import joint_batch, move


class FlowTransform(Transform):
    r"""The map :math:`z = \mathrm{flow}(x)` from data to base, as of zuko's transforms.

    .. math:: \log p(x) = \log p_{base}(z) + \log \left| \det \frac{\partial z}{\partial x} \right|

    So data are distributed as ``TransformedDistribution(base, [FlowTransform(flow).inv])``. The
    inverse takes the steps backwards, which undoes them up to the error of the solver.

    With ``cache_size=1`` every solve takes the log-determinant along, and the last one is kept:
    ``log_abs_det_jacobian`` of what a solve was given and gave costs no second one, and a result
    goes back to exactly what it was made of. What is kept serves only as long as the flow's
    parameters are the same, and with a gradient only if it has one; the same input is solved again.

    Args:
        flow: A `mvae_fast.FastCNF`, or any module that is called as it is.
        context: (*, C), what the flow is conditioned on; its batch is broadcast with that of x.
        event_dim: Axes of one state: 1, or more for a flow of images.
        cache_size: 0 or 1, as of every transform.
        how: Further arguments of the flow in every call: ``integration_times`` (two),
            ``settings``, ``generator``, ``probes``.

    Raises:
        TypeError: If ``flow`` or ``context`` is none.
        ValueError: If another argument does not fit.

    References:
        Normalizing Flows for Probabilistic Modeling and Inference (Papamakarios et al., 2021),
        section 2, https://arxiv.org/abs/1912.02762

    Example:
        >>> import torch
        >>> from torch.distributions import Independent, Normal, TransformedDistribution
        >>> from mvae_fast import FastCNF, ODEfunc, ODEnet
        >>> flow = FastCNF(ODEfunc(ODEnet((16,), (2,))), trace="exact")
        >>> base = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
        >>> p = TransformedDistribution(base, [FlowTransform(flow, cache_size=1).inv])
        >>> x = p.sample((5,))
        >>> p.log_prob(x).shape
        torch.Size([5])
    """

    bijective = True

    def __init__(
        self,
        flow: nn.Module,
        context: Tensor | None = None,
        *,
        event_dim: int = 1,
        cache_size: int = 0,
        **how: Any,
    ) -> None:
        super().__init__(cache_size=cache_size)
        if not isinstance(flow, nn.Module):
            raise TypeError(f"flow: got a {type(flow).__name__}, expected a FastCNF")
        if context is not None:
            tensor("context", context, "(*, C)")
        self.flow = flow
        self.context = context
        self.how = how
        self._event_dim = integer("event_dim", event_dim, 1)
        self._kept: tuple[Any, ...] | None = None
        self.domain = self.codomain = (
            constraints.real_vector
            if event_dim == 1
            else constraints.independent(constraints.real, event_dim)
        )

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``z`` and ``log|det dz/dx|``, from one solve."""
        return self._solve("x", x, reverse=False)

    def inverse_and_ladj(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """``x`` and ``log|det dx/dz|``, from one solve backwards."""
        return self._solve("z", z, reverse=True)

    def with_cache(self, cache_size: int = 1) -> "FlowTransform":
        """The same map with another ``cache_size``."""
        if cache_size == self._cache_size:
            return self
        return self.like(self.context, cache_size)

    def like(self, context: Tensor | None, cache_size: int) -> "FlowTransform":
        """The same flow, with another context and cache."""
        return FlowTransform(
            self.flow, context, event_dim=self._event_dim, cache_size=cache_size, **self.how
        )

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """``log|det dz/dx|`` at x, (*): kept of the solve between x and y, or of a new one."""
        kept = self._valid()
        if kept is not None and kept[0] is x and kept[1] is y:
            return kept[2]
        return self.call_and_ladj(x)[1]

    def forward_shape(self, shape: tuple[int, ...]) -> torch.Size:
        """Of z, for x of a shape: with the batch of the context."""
        cut = len(shape) - self._event_dim
        batch = shape[:cut] if self.context is None else joint_batch("x", shape[:cut], self.context)
        return torch.Size((*batch, *shape[cut:]))

    inverse_shape = forward_shape

    def __call__(self, x: Tensor) -> Tensor:
        # Not the cache of the base class, which gives the same input the same result, whose graph
        # may be gone by then, and whose flow may have learned.
        kept = self._valid()
        if kept is not None and kept[3] and kept[0] is x:
            return kept[1]
        return self._call(x)

    def _inv_call(self, y: Tensor) -> Tensor:
        kept = self._valid()
        if kept is not None and not kept[3] and kept[1] is y:
            return kept[0]
        return self._inverse(y)

    def _call(self, x: Tensor) -> Tensor:
        if not self._cache_size:
            return self._move("x", x, reverse=False, with_change=False)[0]
        z, ladj = self.call_and_ladj(x)
        self._keep(x, z, ladj, reverse=False)
        return z

    def _inverse(self, y: Tensor) -> Tensor:
        if not self._cache_size:
            return self._move("z", y, reverse=True, with_change=False)[0]
        x, ladj = self.inverse_and_ladj(y)
        self._keep(x, y, -ladj, reverse=True)
        return x

    def _solve(self, name: str, x: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
        moved, ladj = self._move(name, x, reverse=reverse)
        assert ladj is not None
        return moved, ladj

    def _move(self, name: str, x: Tensor, **which: bool) -> tuple[Tensor, Tensor | None]:
        return move(
            self.flow, name, x, self.context, event_dim=self._event_dim, **which, **self.how
        )

    def _keep(self, x: Tensor, z: Tensor, ladj: Tensor, reverse: bool) -> None:
        self._kept = (x, z, ladj, reverse, torch.is_grad_enabled(), self._versions())

    def _valid(self) -> tuple[Any, ...] | None:
        """What is kept, if it is still what a solve would give."""
        kept = self._kept
        if kept is None or (torch.is_grad_enabled() and not kept[4]):
            return None
        return kept if kept[5] == self._versions() else None

    def _versions(self) -> list[tuple[int, int]]:
        """Of the flow's parameters, which every change in place counts up."""
        return [
            (id(x), 0 if x.is_inference() else x._version)
            for x in (*self.flow.parameters(), *self.flow.buffers())
        ]

    def __getstate__(self) -> dict[str, Any]:
        # It holds a graph, which neither deepcopy nor pickle can take.
        return {**super().__getstate__(), "_kept": None}

    def __repr__(self) -> str:
        return f"FlowTransform({type(self.flow).__name__})"
