"""The line through times, and that the table comes out."""

import argparse

import numpy as np
import pytest

from benchmarks import scaling
from benchmarks.common.workloads import Workload
from benchmarks.scaling import ascending, exponent, fit_line, row

SIZES = [64, 128, 256, 512, 1024, 2048]


def test_a_line_is_recovered():
    line = fit_line(SIZES, [3e-3 + 1e-4 * n for n in SIZES])
    assert line.fixed == pytest.approx(3e-3, rel=1e-9)
    assert line.slope == pytest.approx(1e-4, rel=1e-9)
    assert line.deviation < 1e-9


def test_relative_noise_is_weighed_alike_at_every_size():
    rng = np.random.default_rng(0)
    fixed = []
    for _ in range(200):
        times = [(1e-3 + 1e-4 * n) * rng.lognormal(sigma=0.03) for n in SIZES]
        fixed.append(fit_line(SIZES, times).fixed)
    # Absolute residuals would leave the fixed cost to the noise of the largest times, 3 % of 0.2 s:
    # their fit scatters by 3e-3 here.
    assert np.std(fixed) < 1e-3
    assert np.mean(fixed) == pytest.approx(1e-3, abs=2e-4)


def test_a_curve_deviates():
    quadratic = [1e-6 * n**2 for n in SIZES]
    assert fit_line(SIZES, quadratic).deviation > 0.5
    assert exponent(SIZES, quadratic) == pytest.approx(2)


@pytest.mark.parametrize("text", ["64,128", "64,64,128", "128,64,256", "0,1,2"])
def test_sizes_that_give_no_line_are_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="three or more ascending"):
        ascending(text)


@pytest.mark.parametrize(
    ("axis", "cell"), [("batch", "B = 2, 4, 8, S = 3"), ("steps", "S = 2, 4, 8, B = 5")]
)
def test_row(axis, cell):
    small = Workload("small", 3, (5,), "squash", "softplus", 5, 3, "")
    cells = row(small, axis, (2, 4, 8), threads=1, seconds=0.01).strip("| ").split(" | ")
    assert cells[:3] == ["small", "1", cell]
    assert all(float(time) > 0 for time in cells[3].split(", "))
    assert [text.split()[-1] for text in cells[4:7]] == ["ms", "us", "%"]
    assert f"|{'---|' * len(cells)}" == scaling.HEAD.splitlines()[1]


def test_command_line(capsys):
    scaling.main(["--workloads", "W1", "--seconds", "0", "--rows", "1,2,3", "--steps", "1,2,3"])
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| W1 ")]
    assert len(table) == 2
