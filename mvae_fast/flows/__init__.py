"""Flows for posteriors, all called as `mvae_fast.FastCNF` is: ``flow(z, logp) -> (z', logp')``."""

from mvae_fast.cnf import FastCNF
from mvae_fast.flows.amortized_cnf import AmortizedCNF
from mvae_fast.flows.base import Flow
from mvae_fast.flows.exact import has_exact_log_det
from mvae_fast.flows.iaf import IAF
from mvae_fast.flows.planar import PlanarFlow
from mvae_fast.flows.sequential import SequentialFlow
from mvae_fast.flows.sylvester import SylvesterFlow

__all__ = [
    "IAF", "AmortizedCNF", "FastCNF", "Flow", "PlanarFlow", "SequentialFlow", "SylvesterFlow",
    "has_exact_log_det",
]  # fmt: skip
