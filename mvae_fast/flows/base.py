"""What every flow here has in common: how it is called, and what it refuses."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mvae_fast.checks import NotScriptable, boolean, integer, one_of, tensor
from mvae_fast.cnf import FastCNF
from mvae_fast.core.problem import LogDet, Trace
from mvae_fast.ode.settings import Settings


class Flow(NotScriptable, nn.Module, ABC):
    r"""An invertible map of :math:`R^D` that keeps the log-density along.

    .. math:: z' = g(z; c), \qquad \log p'(z') = \log p(z) - \log \left| \det \frac{\partial
              z'}{\partial z} \right|

    The calling convention is that of `mvae_fast.FastCNF`. A subclass implements ``_move``.

    Args:
        dim: Size D of the state, >= 1.
        cond_dim: Size C of the condition ``cond``; with 0 the parameters are free and shared by
            all rows, else they are amortised: every row has its own, made from its ``cond``.

    Raises:
        ValueError: If a size does not fit.

    References:
        Variational Inference with Normalizing Flows (Rezende and Mohamed, 2015), eq. 5,
        https://arxiv.org/abs/1505.05770; amortised parameters: Sylvester Normalizing Flows for
        Variational Inference (van den Berg et al., 2018), https://arxiv.org/abs/1803.05649

    Example:
        >>> class Scale(Flow):
        ...     def __init__(self, dim):
        ...         super().__init__(dim)
        ...         self.log = nn.Parameter(torch.ones(dim))
        ...
        ...     def _move(self, z, cond, reverse):
        ...         log = -self.log if reverse else self.log
        ...         return z * log.exp(), -log.sum().expand(len(z))
        >>> Scale(3)(torch.ones(2, 3), torch.zeros(2))[1].tolist()
        [-3.0, -3.0]
    """

    dim: int
    cond_dim: int
    #: Whether the log-density is an integral, so that ``_move`` takes more arguments.
    integrates: ClassVar[bool] = False

    def __init__(self, dim: int, cond_dim: int = 0) -> None:
        super().__init__()
        self.dim = integer("dim", dim, 1)
        self.cond_dim = integer("cond_dim", cond_dim, 0)

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
        """Move states along the flow.

        Args:
            z: (B, D), the states; under autocast taken to the dtype of the flow.
            logp: (B, 1) or (B,), their log-density; None for the states alone.
            reverse: The inverse map.
            cond: (B, C), what the parameters are made from; None if and only if ``cond_dim`` is 0.
            generator: Source of the noise, of which only an `AmortizedCNF` has any.
            trace: ``"exact"``: for this call, no estimate of a trace; None as the flow is set.
            log_det: ``"exact"``: for this call, the log-determinant of the steps that are taken, in
                place of the integral of the trace; None as the flow is set. A flow that integrates
                nothing has the exact one in any case.

        Returns:
            The moved states, shaped like ``z``; with ``logp`` also their log-density, shaped like
            ``logp``.

        Raises:
            TypeError: If an input is no dense tensor.
            ValueError: If a shape or dtype does not fit, or ``cond`` is missing or not wanted.
        """
        check_types(z, logp, reverse, cond)
        check_exact(trace, log_det)
        device = z.device.type
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            # Rounded to half precision the map would not be the one whose density is kept.
            dtype = next(self.parameters()).dtype
            logp = None if logp is None else logp.to(dtype)
            cond = None if cond is None else cond.to(dtype)
            with torch.autocast(device, enabled=False):
                return self.forward(
                    z.to(dtype),
                    logp,
                    reverse,
                    cond=cond,
                    generator=generator,
                    trace=trace,
                    log_det=log_det,
                )
        self._check_input(z, logp, cond)
        how: dict[str, Any] = {"generator": generator, "trace": trace, "log_det": log_det}
        how["with_change"] = logp is not None
        z_out, change = self._move(z, cond, reverse, **(how if self.integrates else {}))
        if logp is None:
            return z_out
        assert change is not None
        return z_out, logp + change.view(logp.shape)

    @abstractmethod
    def _move(self, z: Tensor, cond: Tensor | None, reverse: bool) -> tuple[Tensor, Tensor | None]:
        """The moved states (B, D) and ``-log|det|`` (B,).

        Where the flow `integrates` it also takes ``generator``, ``trace``, ``log_det`` and
        ``with_change``; if that is False the second result may be None.
        """

    def _check_input(self, z: Tensor, logp: Tensor | None, cond: Tensor | None) -> None:
        if z.ndim != 2 or z.shape[1] != self.dim:
            raise ValueError(f"z: got shape {tuple(z.shape)}, expected (B, {self.dim})")
        batch = z.shape[0]
        if logp is not None and logp.shape != (batch, 1) and logp.shape != (batch,):
            raise ValueError(
                f"logp: got shape {tuple(logp.shape)}, expected ({batch}, 1) or ({batch},)"
            )
        check_cond(cond, self.cond_dim, batch)
        ours = next(self.parameters())
        for name, given in (("z", z), ("logp", logp), ("cond", cond)):
            if given is not None and (given.dtype, given.device) != (ours.dtype, ours.device):
                raise ValueError(
                    f"{name}: got {given.dtype} on {given.device}, but the flow is {ours.dtype} "
                    f"on {ours.device}; remedy: flow.to({name})"
                )


def innermost(flow: Callable[..., Any]) -> Callable[..., Any]:
    """A flow out of its wrappers: compiled and distributed ones take what the one inside takes."""
    while isinstance(inner := getattr(flow, "_orig_mod", getattr(flow, "module", None)), nn.Module):
        flow = inner
    return flow


def takes(flow: Callable[..., Any], name: str) -> bool:
    """Whether a flow, a module or any callable, has an argument of this name."""
    flow = innermost(flow)
    call = flow.forward if isinstance(flow, nn.Module) else flow
    return name in inspect.signature(call).parameters


def integrates(flow: object) -> bool:
    """Whether a flow's log-density is an integral over time."""
    return isinstance(flow, FastCNF) or (isinstance(flow, Flow) and flow.integrates)


def arguments(
    flow: Callable[..., Any],
    *,
    generator: torch.Generator | None = None,
    trace: Trace | None = None,
    log_det: LogDet | None = None,
) -> dict[str, Any]:
    """How to call a flow of any kind so: those of these arguments that it takes, in its own words.

    Raises:
        ValueError: If an argument does not fit, or an exact trace or log-determinant is asked of a
            module that holds a flow which has an integral, and does not take the argument.
    """
    check_exact(trace, log_det)
    found: dict[str, Any] = {}
    if generator is not None and takes(flow, "generator"):
        found["generator"] = generator
    exact: dict[str, Any] = {"trace": trace, "log_det": log_det}
    exact = {name: value for name, value in exact.items() if value is not None}
    inside = innermost(flow)
    if exact and isinstance(inside, FastCNF) and takes(flow, "settings"):
        return {**found, "settings": exact_settings(inside.settings, **exact)}
    for name, value in exact.items():
        if takes(flow, name):
            found[name] = value
        elif isinstance(inside, nn.Module) and any(map(integrates, inside.modules())):
            raise ValueError(
                f"{name}: got {value!r}, but the forward of {type(inside).__name__}, which holds a "
                f"continuous flow, takes no {name}; remedy: take it, and hand it to that flow"
            )
    return found


def exact_settings(
    settings: Settings, trace: Trace | None = None, log_det: LogDet | None = None
) -> Settings:
    """The settings of a `FastCNF` with an exact trace, or log-determinant of its steps."""
    if log_det is None:
        return settings if trace is None else replace(settings, trace=trace)
    # Few engines have it, and none by adjoint or in half precision: these are the same steps.
    return replace(
        settings, log_det=log_det, trace="exact", engine="auto", adjoint=False, precision="full"
    )


def check_exact(trace: Trace | None, log_det: LogDet | None) -> None:
    """Raise ValueError unless each is ``"exact"`` or None."""
    one_of("trace", trace, (None, "exact"))
    one_of("log_det", log_det, (None, "exact"))


def check_types(z: Tensor, logp: Tensor | None, reverse: bool, cond: Tensor | None) -> None:
    """Raise TypeError or ValueError unless these are what every flow takes."""
    tensor("z", z, "(B, D)")
    if logp is not None:
        tensor("logp", logp, "(B, 1) or (B,)")
    boolean("reverse", reverse)
    if cond is not None:
        tensor("cond", cond, "(B, C)")


def check_cond(cond: Tensor | None, cond_dim: int, batch: int) -> None:
    """Raise ValueError unless ``cond`` is (batch, cond_dim), or None where ``cond_dim`` is 0."""
    if cond_dim == 0:
        if cond is not None:
            raise ValueError("cond: given, but the flow is not amortised (cond_dim=0)")
    elif cond is None:
        raise ValueError(f"cond: got None, expected ({batch}, {cond_dim}): the flow is amortised")
    elif cond.shape != (batch, cond_dim):
        raise ValueError(f"cond: got shape {tuple(cond.shape)}, expected ({batch}, {cond_dim})")
