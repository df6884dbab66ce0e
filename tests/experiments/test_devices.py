import pytest
import torch

from mvae_fast.experiments import devices
from mvae_fast.experiments.devices import emulates_bf16, resolve_device


@pytest.fixture(params=[0, 2])
def gpus(request, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)
    return request.param


def test_auto_is_a_gpu_if_there_is_one(gpus):
    assert str(resolve_device("auto")) == ("cuda:0" if gpus else "cpu")
    assert str(resolve_device("cpu")) == "cpu"


def test_gpus_have_numbers(gpus):
    for name, number in [("cuda", 0), ("cuda:1", 1), ("cuda:2", 2)]:
        if number < gpus:
            assert resolve_device(name) == torch.device("cuda", number)
        else:
            with pytest.raises(ValueError, match=f"got '{name}'; GPUs: {gpus}"):
                resolve_device(name)


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cpu:0", ""])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match=f"device must be auto, .* got '{name}'"):
        resolve_device(name)


@pytest.mark.parametrize(
    ("cpuinfo", "emulated"),
    [
        ("model name\t: Intel(R) Xeon(R)\nflags\t\t: fpu avx2 avx512f avx512_vnni\n", True),
        ("flags\t\t: fpu avx2 avx512f avx512_bf16 avx512_vnni\n", False),
        ("Features\t: fp asimd sve asimddp\n", True),
        ("Features\t: fp asimd sve svebf16 i8mm bf16\n", False),
        ("", False),  # nothing is known
    ],
)
def test_bf16_instructions(monkeypatch, cpuinfo, emulated):
    monkeypatch.setattr(devices, "_cpuinfo", lambda: cpuinfo)
    assert emulates_bf16(torch.device("cpu")) == emulated
    assert not emulates_bf16(torch.device("cuda", 0))
