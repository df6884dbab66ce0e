"""Exact traces and the log-density change of the map that is applied, for every flow inside of a
module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from mvae_fast.cnf import FastCNF
from mvae_fast.core.tableaus import TABLEAUS
from mvae_fast.flows.amortized_cnf import AmortizedCNF

__all__ = ["exact_log_det", "exact_trace", "has_exact_log_det"]

Settings = Mapping[type[nn.Module], Mapping[str, Any]]

_TRACE: Settings = {FastCNF: {"trace": "exact"}, AmortizedCNF: {"trace": "exact"}}

# With log_det="exact" a FastCNF takes the exact trace, through the steps and in full precision, and
# refuses an engine by name: none of these changes the steps that it applies.
_LOG_DET: Settings = {
    FastCNF: {
        "log_det": "exact",
        "trace": "exact",
        "engine": "auto",
        "adjoint": False,
        "precision": "full",
    },
    AmortizedCNF: {"log_det": "exact"},
}


@contextmanager
def exact_trace(module: nn.Module) -> Iterator[None]:
    """Within it every continuous flow integrates the exact trace: Hutchinson's noise is gone.

    That is in closed form for nets of up to two hidden layers (with low-rank updates of the weights
    up to one); others cost about D times as much as with one probe. Settings are restored at the
    end, also after an error.

    Args:
        module: A flow, a chain of flows, or a model that holds some.

    Yields:
        None.

    Example:
        >>> import torch
        >>> from mvae_fast import FastCNF, ODEfunc, ODEnet
        >>> flow = FastCNF(ODEfunc(ODEnet((8,), (2,))), trace="hutchinson")
        >>> z, zero = torch.ones(3, 2), torch.zeros(3, 1)
        >>> with exact_trace(flow):
        ...     one, two = (flow(z, zero)[1] for _ in range(2))
        >>> torch.equal(one, two), flow.trace
        (True, 'hutchinson')
    """
    with _set(module, _TRACE):
        yield


@contextmanager
def exact_log_det(module: nn.Module) -> Iterator[None]:
    r"""Within it every continuous flow returns the log-determinant of the steps that it takes.

    .. math:: \log p' = \log p - \sum_s \log \left|\det \frac{\partial z_{s+1}}{\partial z_s}\right|

    in place of the integral of the trace, which equals it only in the limit of many steps: with few
    large ones an ELBO made of the integral is no bound. The states are the same up to rounding.
    Discrete flows are exact as they are. Settings are restored at the end, also after an error.

    Args:
        module: A flow, a chain of flows, or a model that holds some.

    Yields:
        None. A flow that has none (see `has_exact_log_det`) raises ValueError when it is called.

    Example:
        >>> import torch
        >>> from mvae_fast import FastCNF, ODEfunc, ODEnet
        >>> flow = FastCNF(ODEfunc(ODEnet((8,), (2,))), n_steps=2, trace="exact")
        >>> z, zero = torch.ones(3, 2), torch.zeros(3, 1)
        >>> with exact_log_det(flow):
        ...     _, exact = flow(z, zero)
        >>> bool((exact - flow(z, zero)[1]).abs().max() > 1e-4), flow.log_det
        (True, 'trace')
    """
    with _set(module, _LOG_DET):
        yield


def has_exact_log_det(module: nn.Module) -> bool:
    """Whether every flow of a module has an exact log-determinant in its present mode.

    A continuous flow has none with a solver that is not one of `mvae_fast.core.tableaus.TABLEAUS`,
    as adaptive ones are not, or with a velocity that `mvae_fast.FastCNF` leaves to torchdiffeq.

    Args:
        module: A flow, a chain of flows, or a model that holds some.

    Returns:
        Whether `exact_log_det` works with it.

    Example:
        >>> from mvae_fast import FastCNF, ODEfunc, ODEnet
        >>> flow = FastCNF(ODEfunc(ODEnet((8,), (2,))), solver="dopri5")
        >>> has_exact_log_det(flow)
        False
    """
    with exact_log_det(module):
        return all(
            part.fused if isinstance(part, FastCNF) else part.solver in TABLEAUS
            for part in module.modules()
            if isinstance(part, FastCNF | AmortizedCNF)
        )


@contextmanager
def _set(module: nn.Module, by_kind: Settings) -> Iterator[None]:
    with ExitStack() as restore:
        for part in module.modules():
            for kind, settings in by_kind.items():
                if isinstance(part, kind):
                    for name, setting in settings.items():
                        restore.callback(setattr, part, name, getattr(part, name))
                        setattr(part, name, setting)
        yield
