"""Where models are trained and evaluated."""

import platform
import re
from pathlib import Path

import torch


def resolve_device(name: str) -> torch.device:
    """The device that a setting names.

    Args:
        name: ``auto``, which is the first GPU if there is one and else the CPU, ``cpu``, ``cuda``
            or ``cuda:<number>``.

    Returns:
        The device; a GPU with its number.

    Raises:
        ValueError: If it is none of these, or there is no such GPU.

    Example:
        >>> resolve_device("cpu")
        device(type='cpu')
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:<number>, got {name!r}")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not gpus):
        return torch.device("cpu")
    index = int(name.partition(":")[2] or 0)
    if index >= gpus:
        raise ValueError(f"device must be one that is there, got {name!r}; GPUs: {gpus}")
    return torch.device("cuda", index)


def processor() -> str:
    """What the system calls this machine's processor."""
    model = re.search(r"^model name\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    return model.group(1) if model else platform.processor() or platform.machine()


def emulates_bf16(device: torch.device) -> bool:
    """Whether a device is a CPU of which the system says that it has no bfloat16 instructions.

    PyTorch then emulates them; where the system says nothing (it is not Linux) False.
    """
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    return device.type == "cpu" and flags is not None and "bf16" not in flags.group(1)


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""
