"""The kernels compile for every architecture, without spills and within their registers; and the
library of them links and loads beside any torch."""

import subprocess
import sys

import pytest

from build_backend import cuda
from build_backend.compile import find_compiler
from build_backend.target_torch import find_torch
from tests.cuda.compile import ALL, SOURCES, parse, report, reporting_toolkit

NVCC = cuda.find_nvcc()
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


def check(functions, source):
    """Of one file on one architecture."""
    if source.stem.startswith("solver_"):
        assert {x.name for x in functions} >= KERNELS
        # With probes and without.
        assert len([x for x in functions if x.name == "backward_kernel"]) == 2
    for function in functions:
        assert function.spills == 0 and function.stack == 0, function
        if function.registers is not None:
            assert function.registers <= BUDGET[function.name], function


# On Hopper every file, in the test of the library; on Ampere and Blackwell both kinds of fragments,
# as fp16 takes those of bf16 and tf32 those of full. `python -m tests.cuda.compile` does all.
JOBS = [
    (source, name)
    for source, name in ALL
    if name != "9.0" and source.stem in ("device", "solver_bf16", "solver_full")
]


@pytest.mark.skipif(NVCC is None, reason="needs nvcc")
@pytest.mark.parametrize(("source", "name"), JOBS, ids=[f"{x.stem}-{name}" for x, name in JOBS])
def test_no_spills(tmp_path, source, name):
    check(report(NVCC, tmp_path, [(source, name)]), source)


# Loads beside the torch that runs the tests, whichever that is, and looks for its kernels.
LOAD = """
import sys, torch
import mvae_fast.engines.cpp
torch.ops.load_library(sys.argv[1])
for name in ("solve", "solve_backward"):
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"mvae_fast::{name}", "CUDA"), name
from mvae_fast.engines import cuda as cuda_ops
for device in range(torch.cuda.device_count()):
    reason = cuda_ops.excludes(torch.device("cuda", device))
    assert reason is None or "compute capability" in reason, reason
# No machine has so many.
assert torch.ops.mvae_fast.cuda_device_error.default(1000) != ""
"""


@pytest.mark.skipif(NVCC is None, reason="needs nvcc")
@pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler")
def test_library_links_and_loads_beside_any_torch(tmp_path):
    library, objects = tmp_path / cuda.LIBRARY, tmp_path / "objects"
    environ = {
        "MVAE_FAST_FORCE_CUDA": "1",
        "TORCH_CUDA_ARCH_LIST": "9.0",
        "CUDA_HOME": str(reporting_toolkit(NVCC, tmp_path / "toolkit")),
        "CXX": find_compiler()[0],
    }
    cuda.build_cuda_library(library, find_torch(), objects, environ)
    subprocess.run([sys.executable, "-c", LOAD, str(library)], check=True, cwd=cuda.ROOT)
    for source in SOURCES:
        said = (objects / f"{source.stem}.o.txt").read_text()
        check(parse(said, source.name, "9.0"), source)
