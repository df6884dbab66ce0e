"""The kernels compile for every architecture, without spills and within their registers."""

import itertools

import pytest

from build_backend.cuda import find_nvcc
from tests.cuda.compile import DEFAULT_ARCHITECTURES, SOURCES, parse, report

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
BUDGET = dict.fromkeys(KERNELS, 40) | dict.fromkeys(("forward_kernel", "backward_kernel"), 255)
BUDGET["product_kernel"] = 176


def test_a_spill_would_be_seen():
    text = """ptxas info    : Function properties for _ZN9mvae_fast4cuda14forward_kernelINS0_2
    8 bytes stack frame, 12 bytes spill stores, 24 bytes spill loads
ptxas info    : Used 128 registers, used 1 barriers, 8 bytes cumulative stack size
"""
    (function,) = parse(text, "a.cu", "9.0")
    assert (function.name, function.registers) == ("forward_kernel", 128)
    assert (function.stack, function.spills) == (8, 36)


@pytest.mark.skipif(NVCC is None, reason="needs nvcc")
def test_no_spills_on_any_architecture(tmp_path):
    functions = report(NVCC, tmp_path)
    solvers = [source.name for source in SOURCES if source.stem.startswith("solver_")]
    assert len(solvers) == 4
    for source, architecture in itertools.product(solvers, DEFAULT_ARCHITECTURES):
        here = [x for x in functions if (x.source, x.architecture) == (source, architecture)]
        assert {x.name for x in here} >= KERNELS, (source, architecture)
        assert len([x for x in here if x.name == "backward_kernel"]) == 2  # with probes, without
    for function in functions:
        assert function.spills == 0 and function.stack == 0, function
        if function.registers is not None:
            assert function.registers <= BUDGET[function.name], function
