"""Shared by all tests: fixed seeds, and runs for each engine or instruction set of this machine."""

import os
import sys
from pathlib import Path

import pytest
import torch

# Before Triton is imported: without a GPU its kernels run on the CPU, operation by operation, in
# tests/kernels and tests/engines; with one, as they are, in tests/gpu.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Before inductor is: a test would wait for processes that compile, each of which imports torch.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

from mvae_fast.engines import cpp as ops
from tests.oracles import engines_on

#: What compiles, emulates, starts processes or trains.
SLOW = {
    Path(__file__).parent / name
    for name in ("benchmarks", "cuda", "experiments", "fuzz", "gpu", "kernels", "packaging")
}


def pytest_ignore_collect(collection_path, config):
    """`make check` need not read what it would not run."""
    return True if config.option.markexpr == "not slow" and collection_path in SLOW else None


def pytest_collection_modifyitems(items):
    slow = {path for path in {item.path for item in items} if not SLOW.isdisjoint(path.parents)}
    for item in items:
        if item.path in slow:
            item.add_marker("slow")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _compiler():
    """A compiler that has seen no other test: it takes a function a few times only."""
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()


@pytest.fixture(autouse=True)
def threads():
    """One thread: on problems this small the threads of a loaded machine wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(params=engines_on("cpu"))
def engine(request):
    return request.param


@pytest.fixture(params=ops.capabilities() or ("none",))
def capability(request):
    """Each instruction set of this processor, forced in turn; "none" without the C++ engine."""
    before = ops.capability()
    if before is not None:
        ops.set_capability(request.param)
    yield request.param
    if before is not None:
        ops.set_capability(before)
