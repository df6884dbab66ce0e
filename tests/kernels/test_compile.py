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


@pytest.fixture(scope="module")
def used(tmp_path_factory):
    """A row for every kernel, capability, kind of operand, tile and trace."""
    cache = tmp_path_factory.mktemp("triton")
    environment = {**os.environ, "TRITON_CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT)}
    environment.pop("TRITON_INTERPRET", None)
    script = str(ROOT / "tests" / "kernels" / "compiled.py")
    processes = [
        subprocess.Popen(
            [sys.executable, script, capability],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for capability in ("80", "90")
    ]
    rows = []
    for process in processes:
        out, err = process.communicate()
        assert process.returncode == 0, err
        rows += [json.loads(line) for line in out.splitlines()]
    return rows


def test_registers_and_spills_are_within_their_budgets(used):
    assert len(used) == 96
    for row in used:
        assert row["registers"] <= 255, row
        assert row["stack"] <= STACK[row["kernel"], row["capability"]], row


def test_shared_memory_leaves_room_for_several_programs(used):
    # Of the 164 KB of an A100 and the 227 KB of an H100.
    assert max(row["shared"] for row in used) <= 32 << 10


def test_products_run_on_tensor_cores(used):
    assert all(row["tensor_core_calls"] >= 4 for row in used)
