"""The roofline's counts, and that its table comes out."""

import pytest

from benchmarks.common.workloads import Workload
from benchmarks.roofline import multiply_adds, row, speedup
from mvae_fast.engines import cpp as ops

pytestmark = pytest.mark.skipif(ops.why_missing() is not None, reason="needs the C++ engine")


def test_counts_are_those_of_the_formulas():
    D, m = 128, 256
    assert multiply_adds((D, m, D)) == (2 * D * m, 5 * D * m)
    assert multiply_adds((D, m, m, D)) == (
        2 * D * m + 2 * m * m,  # the net and the trace's table
        5 * D * m + 6 * m * m,
    )
    forward, backward = multiply_adds((2, 64, 64, 64, 2))
    assert forward == 2 * 2 * 64 + 2 * 64**2 + 2 * (2 * 64**2)
    assert backward > 2 * forward


def test_peak_counts_every_repeat(threads):
    threads(1)
    assert ops.peak(7) == 7 * ops.peak(1) > 0


def test_row(threads):
    small = Workload("small", 3, (5,), "squash", "softplus", 4, 2, "")
    cells = row(small, threads=1, seconds=0.01).strip("| ").split(" | ")
    assert cells[:2] == ["small", "1"] and len(cells) == 6
    assert float(cells[2]) > 0 and all(cell.endswith(" %") for cell in cells[3:])


def test_speedup(threads):
    small = Workload("small", 3, (5,), "squash", "softplus", 4, 2, "")
    threads(1)
    median, spread = speedup(small, 2, rounds=3, calls_each=1).split("x ")
    low, high = map(float, spread.strip("()").split("-"))
    assert 0 < low <= float(median) <= high
