"""The program that compute-sanitizer watches; here also to compile what it will need."""

import pytest

from benchmarks.gpu.timing import why_no_gpu
from tests.gpu import odd_sizes
from tests.gpu.places import NEAR, every


@pytest.mark.parametrize(
    ("place", "precision"), every(NEAR, [(name,) for name in odd_sizes.PRECISIONS])
)
def test_series(place, precision):
    place.require(precision)
    assert odd_sizes.solve(place, precision) < odd_sizes.NEAR_ENOUGH


def test_it_runs_what_there_is(capsys):
    assert odd_sizes.main(["--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].endswith(" series, 0 wrong")
    assert any(line.startswith("cpu-reference: bf16, (17, 3, (33,)), exact: ") for line in lines)


@pytest.mark.skipif(why_no_gpu() is None, reason="needs a machine without a GPU")
def test_nothing_to_run_is_no_success(capsys):
    assert odd_sizes.main([]) == 1
    assert "cuda-triton: not run: needs a GPU" in capsys.readouterr().out
