"""What the Triton kernels take of a GPU, compiled for Ampere and Hopper without one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed")

ROOT = Path(__file__).resolve().parents[2]
# Bytes of stack a thread may take, which is where ptxas spills registers to: read off what Triton
# 3.7.1 makes, rounded up. A thread has at most 255 registers; what is spilled are addresses that
# were hoisted out of loops. Three TF32 products hold every operand in two halves: more is spilled.
STACK = {
    ("forward", 80): 64,
    ("forward", 90): 32,
    ("adjoint", 80): 320,
    ("adjoint", 90): 64,
    ("table_gradient", 80): 0,
    ("table_gradient", 90): 0,
}


def compiled(cache, *arguments):
    """What a run of tests/kernels/compiled.py prints."""
    environment = {**os.environ, "TRITON_CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT)}
    environment.pop("TRITON_INTERPRET", None)
    process = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "kernels" / "compiled.py"), *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    return [json.loads(line) for line in process.stdout.splitlines()]


def test_every_option_compiles(tmp_path):
    rows = compiled(tmp_path, "options")
    assert len(rows) == 2 * 13 and all(row["tensor_core_calls"] >= 2 for row in rows)
    assert {row["kind"] for row in rows} == set(range(7))
    # relu and elu must not make a number of NaN.
    relus = [row["nan_to_number"] for row in rows if row["kind"] in (2, 3)]
    assert relus == [0] * 6


@pytest.mark.parametrize("capability", [80, 90])
def test_what_a_solve_takes(tmp_path, capability):
    used = compiled(tmp_path, "square", str(capability))
    # Forward and adjoint of nine, and the gradients of tables with each operand.
    assert len(used) == 2 * 9 + 3
    for row in used:
        assert row["registers"] <= 255, row
        assert row["stack"] <= STACK[row["kernel"], row["capability"]], row
        # Room for several programs in the 164 KB of an A100 and the 227 KB of an H100.
        assert row["shared"] <= 32 << 10, row
        assert row["tensor_core_calls"] >= 4, row
