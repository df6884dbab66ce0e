"""Which flows have the log-density change of the map that is applied."""

from collections.abc import Callable
from typing import Any

from torch import nn

from mvae_fast.cnf import FastCNF
from mvae_fast.core.tableaus import TABLEAUS
from mvae_fast.flows.amortized_cnf import AmortizedCNF
from mvae_fast.flows.base import exact_settings, innermost, integrates, takes
from mvae_fast.flows.sequential import SequentialFlow


def has_exact_log_det(flow: Callable[..., Any]) -> bool:
    """Whether a flow has an exact log-determinant in its present mode, train or eval.

    A continuous flow has none with a solver of torchdiffeq's alone, as dopri8 is, or with a
    velocity that `mvae_fast.FastCNF` leaves to torchdiffeq. Nor has one inside of a module that
    does not take the argument.

    Args:
        flow: A flow, or a chain of flows.

    Returns:
        Whether ``flow(z, logp, log_det="exact")`` works, and of a `mvae_fast.FastCNF`
        ``settings`` that ask for it.

    Example:
        >>> from mvae_fast import FastCNF, ODEfunc, ODEnet
        >>> flow = FastCNF(ODEfunc(ODEnet((8,), (2,))), solver="dopri8")
        >>> has_exact_log_det(flow)
        False
    """
    flow = innermost(flow)
    if not isinstance(flow, nn.Module):
        return True
    if isinstance(flow, SequentialFlow):
        return all(has_exact_log_det(part) for part in flow.chain)
    if isinstance(flow, FastCNF) and takes(flow, "settings"):
        return flow._obstacle(exact_settings(flow.settings, log_det="exact")) is None
    if isinstance(flow, AmortizedCNF):
        return flow.solver in TABLEAUS
    parts = [part for part in flow.modules() if part is not flow and integrates(part)]
    if integrates(flow) or parts:
        return takes(flow, "log_det") and all(has_exact_log_det(part) for part in parts)
    return True
