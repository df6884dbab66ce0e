"""The kernels compile for every architecture, without spills and within their registers."""

import pytest

from build_backend.cuda import find_nvcc
from tests.cuda.compile import ALL, parse, report

NVCC = find_nvcc()
KERNELS = {
    "forward_kernel",
    "backward_kernel",
    "product_kernel",
    "pack_kernel",
    "sum_kernel",
    "copy_kernel",
}
# A thread block has 256 threads of an SM's 65536 registers. The sweeps and the products over rows
# promise one block an SM, which leaves them 255; the others are small and run in many.
BUDGET = dict.fromkeys({*KERNELS, "any_kernel"}, 40)
BUDGET |= dict.fromkeys(("forward_kernel", "backward_kernel"), 255)
BUDGET["product_kernel"] = 176


def test_a_spill_would_be_seen():
    text = """ptxas info    : Function properties for _ZN9mvae_fast4cuda14forward_kernelINS0_2
    8 bytes stack frame, 12 bytes spill stores, 24 bytes spill loads
ptxas info    : Used 128 registers, used 1 barriers, 8 bytes cumulative stack size
"""
    (function,) = parse(text, "a.cu", "9.0")
    assert (function.name, function.registers) == ("forward_kernel", 128)
    assert (function.stack, function.spills) == (8, 36)


# Every file on Ampere and Hopper, and both kinds of fragments on Blackwell;
# `python -m tests.cuda.compile` does the others as well.
JOBS = [
    (source, name)
    for source, name in ALL
    if name in ("8.0", "9.0") or source.stem in ("device", "solver_bf16", "solver_full")
]


@pytest.mark.skipif(NVCC is None, reason="needs nvcc")
def test_no_spills(tmp_path):
    functions = report(NVCC, tmp_path, JOBS)
    solvers = [(source.name, name) for source, name in JOBS if source.stem.startswith("solver_")]
    assert len(solvers) == 10
    for job in solvers:
        here = [x for x in functions if (x.source, x.architecture) == job]
        assert {x.name for x in here} >= KERNELS, job
        assert len([x for x in here if x.name == "backward_kernel"]) == 2  # with probes, without
    for function in functions:
        assert function.spills == 0 and function.stack == 0, function
        if function.registers is not None:
            assert function.registers <= BUDGET[function.name], function
