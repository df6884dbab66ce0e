"""Fast continuous normalizing flows and multimodal VAEs for PyTorch."""

from mvae_fast.cnf import FastCNF
from mvae_fast.flow_matching import likelihood
from mvae_fast.nets.odenet import ODEnet
from mvae_fast.ode.odefunc import ODEfunc

__all__ = ["FastCNF", "ODEfunc", "ODEnet", "__version__", "likelihood"]

__version__ = "0.1.0"
