"""Which GPUs the CUDA engine runs on: as its library says, whatever torch sees."""

import pytest
import torch

from mvae_fast.engines import cuda, ops

NO_IMAGE = "no kernel image is available for execution on the device"


@pytest.fixture
def gpus(monkeypatch):
    """Make GPUs appear: for each its name, compute capability and what CUDA says of it."""
    asked = []

    def make(*found, current=0):
        def error(index):
            asked.append(index)
            return found[index][2]

        monkeypatch.setattr(ops, "cuda_device_error", error)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: current)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: found[index][0])
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: found[index][1])
        return asked

    cuda._asked_once.cache_clear()
    yield make
    cuda._asked_once.cache_clear()


def test_a_gpu_that_the_library_has_no_code_for(gpus):
    asked = gpus(
        ("NVIDIA H100", (9, 0), ""),
        ("NVIDIA RTX A6000", (8, 6), NO_IMAGE),
        ("Tesla T4", (7, 5), NO_IMAGE),
        current=1,
    )
    assert cuda.excludes(torch.device("cuda:0")) is None
    reason = cuda.excludes(torch.device("cuda:1"))
    assert reason == (
        f"on NVIDIA RTX A6000, of compute capability 8.6, CUDA says: {NO_IMAGE}; "
        "remedy: run `TORCH_CUDA_ARCH_LIST=8.6 pip install .` again"
    )
    assert cuda.excludes(torch.device("cuda")) == reason
    old = cuda.excludes(torch.device("cuda:2"))
    assert "of compute capability 7.5" in old
    assert old.endswith("remedy: engine='auto', since its kernels need 8.0")
    assert asked == [0, 1, 2]  # each once


def test_torch_compile_takes_the_answer_for_a_constant(gpus):
    gpus(("NVIDIA H100", (9, 0), ""), ("Tesla T4", (7, 5), NO_IMAGE))

    def choose(x, device):
        return x + 1 if cuda.excludes(device) is None else x - 1

    compiled = torch.compile(choose, fullgraph=True, backend="eager")
    x = torch.zeros(3)
    assert torch.equal(compiled(x, torch.device("cuda:0")), x + 1)
    assert torch.equal(compiled(x, torch.device("cuda:1")), x - 1)
