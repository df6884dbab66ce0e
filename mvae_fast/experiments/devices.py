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
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        if model:
            return model.group(1)
    return platform.processor() or platform.machine()
