"""Shared by all tests: fixed seeds, and one run for each engine that this machine has."""

import pytest
import torch

from mvae_fast import engines


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(params=engines.available())
def engine(request):
    return request.param
