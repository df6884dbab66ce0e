"""Shared by all tests: fixed seeds, and one run for each engine that this machine has."""

import pytest
import torch

from mvae_fast import engines


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def threads():
    """One thread: on problems this small the threads of a loaded machine wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(params=engines.available())
def engine(request):
    return request.param
