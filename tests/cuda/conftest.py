"""The emulated CUDA engine, under the name "emulated"."""

import os
import shutil

import pytest

from mvae_fast import engines
from mvae_fast.engines import cuda
from tests.cuda.emulator import Emulator, build


@pytest.fixture(scope="session")
def emulator_library(tmp_path_factory):
    if shutil.which("g++") is None and shutil.which("c++") is None:
        pytest.skip("needs a C++ compiler")
    folder = tmp_path_factory.getbasetemp()
    # Processes that share the tests share the emulator as well.
    return build(folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder)


@pytest.fixture
def emulated(emulator_library, monkeypatch):
    emulator = Emulator(emulator_library)
    entry = engines.Engine(emulator.solve, lambda: None, refuses=cuda.refuses)
    monkeypatch.setitem(engines._ENGINES, "emulated", entry)
    return emulator
