"""Fast continuous normalizing flows and multimodal VAEs for PyTorch."""

from mvae_fast.cnf import FastCNF
from mvae_fast.odefunc import ODEfunc
from mvae_fast.odenet import ODEnet

__all__ = ["FastCNF", "ODEfunc", "ODEnet", "__version__"]

__version__ = "0.1.0"
