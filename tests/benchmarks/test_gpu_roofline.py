"""The GPU roofline's table, on the CPU, under a timer that makes the shares known."""

import pytest
import torch

from benchmarks.common.workloads import Workload
from benchmarks.gpu import roofline as gpu_roofline
from benchmarks.gpu.roofline import HEAD, matmul, rows
from benchmarks.gpu.timing import why_no_gpu
from benchmarks.roofline import multiply_adds
from mvae_fast.engines import cpp as ops

SMALL = Workload("small B=5", 7, (11,), "squash", "softplus", 5, 4, "")


def table(precision="full", **options):
    taken = []

    def timer(call):
        """The product, the forward and the backward in turns: 1, 2 and 3 seconds."""
        call()
        taken.append(None)
        return float((len(taken) - 1) % 3 + 1)

    options = {"device": "cpu", "timer": timer, "seconds": 0, "side": 2, **options}
    lines = rows(SMALL, precision, ["reference"], **options)
    return [line.strip("| ").split(" | ") for line in lines]


def test_shares_are_flops_over_time_over_the_peak():
    side = 8
    (cells,) = table(side=side)
    assert cells[:4] == ["small B=5", "full", "reference", "0"]
    forward, backward = (n * 5 * 4 / side**3 for n in multiply_adds((7, 11, 7)))
    expected = (forward / 2, backward / 3, (forward + backward) / 5)
    assert cells[4:] == [f"{100 * share:.0f} %" for share in expected]


def test_shares_of_the_datasheet_stand_in_brackets():
    (cells,) = table(datasheet=1e-9)  # 1000 FLOP/s
    assert cells[3].endswith("(1e-09)")
    forward = multiply_adds((7, 11, 7))[0] * 5 * 4
    assert cells[4].endswith(f"({100 * 2 * forward / 2 / 1000:.0f} %)")


@pytest.mark.skipif(ops.why_missing() is not None, reason="needs the C++ engine")
def test_engines_and_precisions():
    lines = rows(
        SMALL, "bf16", ["cpp", "reference"], device="cpu", timer=lambda call: (call(), 1.0)[1],
        seconds=0, side=2,
    )  # fmt: skip
    assert [line.split(" | ")[1:3] for line in lines] == [["bf16", "cpp"], ["bf16", "reference"]]


def test_the_product_is_in_the_precision_asked_for():
    for precision, dtype in (("tf32", torch.float32), ("bf16", torch.bfloat16)):
        assert matmul(precision, "cpu", 3)().dtype == dtype


def test_head_fits_the_rows():
    (cells,) = table()
    assert len(cells) == len(HEAD.strip("| ").split(" | "))


@pytest.mark.skipif(why_no_gpu() is None, reason="needs a machine without a GPU")
def test_without_a_gpu_it_says_so(capsys):
    with pytest.raises(SystemExit) as stopped:
        gpu_roofline.main([])
    assert stopped.value.code == 3
    assert "needs a GPU: " in capsys.readouterr().err


def test_unknown_precisions_are_refused(capsys):
    with pytest.raises(SystemExit):
        gpu_roofline.main(["--precisions", "tf32,fp8"])
    assert "--precisions: got tf32,fp8" in capsys.readouterr().err
