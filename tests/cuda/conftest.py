"""The emulated CUDA engine, under the name "emulated"."""

import shutil

import pytest

from mvae_fast import engines
from mvae_fast.engines import cuda
from tests.cuda.emulator import Emulator, build


@pytest.fixture(scope="session")
def emulator_library(tmp_path_factory):
    if shutil.which("g++") is None and shutil.which("c++") is None:
        pytest.skip("needs a C++ compiler")
    return build(tmp_path_factory.getbasetemp())


@pytest.fixture
def emulated(emulator_library, monkeypatch):
    emulator = Emulator(emulator_library)
    entry = engines.Engine(emulator.solve, lambda: None, refuses=cuda.refuses)
    monkeypatch.setitem(engines._ENGINES, "emulated", entry)
    return emulator
