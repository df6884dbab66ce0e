"""The engines that the contract is for, each instruction set of the C++ one by itself."""

import shutil

import pytest

from mvae_fast.engines import cpp, triton
from tests.cuda.conftest import emulated, emulator_library
from tests.interpreter import hasten

__all__ = ["contestant", "emulated", "emulator_library"]


@pytest.fixture
def contestant(request):
    """The engine of the name before the colon; of "cpp" on the instruction set behind it."""
    name, _, capability = request.param.partition(":")
    if name == "emulated":
        if shutil.which("g++") is None and shutil.which("c++") is None:
            pytest.skip("needs a C++ compiler")
        request.getfixturevalue("emulated")
    if name == "triton":
        if triton.why_missing() or not triton.INTERPRETED:
            pytest.skip("needs Triton's interpreter")
        hasten()
    if not capability:
        yield name
        return
    before = cpp.capability()
    cpp.set_capability(capability)
    yield name
    cpp.set_capability(before)
