"""The CUDA kernels, compiled for the host, against the float64 reference."""

import itertools

import pytest
import torch

from tests.oracles import NONLINEARITIES, distance, pairwise
from tests.test_integrate import LAYOUTS, SHAPES, TRACES, problem, run


@pytest.mark.parametrize(
    ("shape", "layout", "nonlinearity"), pairwise(SHAPES, list(LAYOUTS), NONLINEARITIES)
)
def test_values_and_gradients(emulated, shape, layout, nonlinearity):
    for trace, residual in itertools.product(TRACES, (False, True)):
        arguments = problem(shape, layout, nonlinearity, trace, residual)
        oracle = run("reference", *arguments, torch.float64)
        for got, exact in zip(run("emulated", *arguments, torch.float64), oracle, strict=True):
            assert distance(got, exact) < 1e-13, (trace, residual)
