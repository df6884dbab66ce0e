"""Where a measurement was taken: what a reader needs in order to compare with their own."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from pathlib import Path

import torch

import mvae_fast
from benchmarks.gpu_environment import gpu_environment
from mvae_fast import ops

__all__ = ["environment"]


def environment() -> dict[str, str]:
    """Hardware, versions and how busy the machine was before the run."""
    facts = {
        "CPU": f"{_cpu_model()}, {os.cpu_count()} cores",
        "instruction set": torch.backends.cpu.get_cpu_capability(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchdiffeq": importlib.metadata.version("torchdiffeq"),
        "mvae_fast": mvae_fast.__version__,
        "kernels": ops.capability() or "none, the reference runs",
        **gpu_environment(),
    }
    if hasattr(os, "getloadavg"):
        facts["load average before the run"] = f"{os.getloadavg()[0]:.1f}"
    return facts


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        if model:
            return model.group(1)
    return platform.processor() or platform.machine()
