"""Densities that flows define: ``log_prob``, ``sample``, distributions and transforms."""

from mvae_fast.density.distribution import FlowDistribution
from mvae_fast.density.methods import HasDensity
from mvae_fast.density.transform import FlowTransform

__all__ = ["FlowDistribution", "FlowTransform", "HasDensity"]
