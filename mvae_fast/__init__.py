"""Fast continuous normalizing flows and multimodal VAEs for PyTorch."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mvae_fast.cnf import FastCNF
    from mvae_fast.flow_matching import likelihood
    from mvae_fast.nets.odenet import ODEnet
    from mvae_fast.ode.odefunc import ODEfunc

__all__ = ["FastCNF", "ODEfunc", "ODEnet", "__version__", "likelihood"]

__version__ = "0.1.0"

# Each is imported when it is first asked for, so that `mvae-fast --help` needs no torch.
_HOMES = {
    "FastCNF": "mvae_fast.cnf",
    "ODEfunc": "mvae_fast.ode.odefunc",
    "ODEnet": "mvae_fast.nets.odenet",
    "likelihood": "mvae_fast.flow_matching",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value  # asked for once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
