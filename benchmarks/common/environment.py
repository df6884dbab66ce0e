"""Where a measurement was taken: what a reader needs in order to compare with their own."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import torch

import mvae_fast
from benchmarks.gpu.environment import gpu_environment
from mvae_fast.engines import cpp as ops
from mvae_fast.experiments.devices import processor

ROOT = Path(__file__).resolve().parents[2]


def environment() -> dict[str, str | None]:
    """Hardware, versions, when it was and how busy the machine was before the run.

    The commit is None where these sources are not a checkout.
    """
    facts: dict[str, str | None] = {
        "date": datetime.now(timezone.utc).isoformat(timespec="minutes"),
        "commit": _commit(ROOT),
        "CPU": f"{processor()}, {os.cpu_count()} cores",
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


def print_environment() -> None:
    """The environment as a Markdown list."""
    for name, value in environment().items():
        print(f"- {name}: {value}")


def _commit(root: Path) -> str | None:
    """What git calls the sources in ``root``, ending in -dirty where they differ from the commit;
    None without git, or where ``root`` is not itself a checkout but, say, a folder inside of one.
    """
    if shutil.which("git") is None or not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None
