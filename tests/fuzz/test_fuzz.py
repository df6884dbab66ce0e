"""300 problems on each instruction set, in parts that say which seeds are theirs."""

from dataclasses import replace

import pytest

from mvae_fast.engines import cpp as ops
from tests.fuzz.check import run
from tests.fuzz.judge import judged, verdict
from tests.fuzz.problems import draw

pytestmark = pytest.mark.skipif(ops.why_missing() is not None, reason="needs the C++ engine")

PROBLEMS, PART = 300, 10


@pytest.mark.parametrize(
    "first",
    [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(PART, PROBLEMS, PART))],
)
def test_problems(first):
    too_far = [
        (seed, capability, error)
        for seed in range(first, first + PART)
        for capability, error, allowed in judged(draw(seed), ops.capabilities())
        if not allowed
    ]
    assert not too_far, "python -m tests.fuzz --problems 1 --seed <the first number>"


@pytest.mark.slow
def test_the_judge_sees_errors():
    """A gradient that is off by 1e-6 of its size would not pass as float64, nor 1e-4 as float32."""
    for seed in range(10):
        problem = draw(seed)
        for error in run(problem, ops.capabilities()[:1]).popitem()[1]:
            size = 1e-6 if problem.dtype.itemsize == 8 else 1e-4
            assert not verdict(problem, replace(error, ours=size))
