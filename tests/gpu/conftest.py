"""Every test of this folder starts from engines that choose their kernels by rule."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _deterministic():
    """Else an engine may try which tile is fastest: other bits in each process, four times as many
    kernels to compile. It also has PyTorch fill new memory with NaN, which no result may show."""
    before = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(before, warn_only=warned)
