"""What ``mvae-fast info`` and ``python -m mvae_fast.info`` print, and what a bug report needs:
versions, hardware, engines."""

import importlib.metadata
import os
import platform
import shlex
import shutil
import subprocess
import textwrap
from typing import Any

import torch

from mvae_fast import __version__, engines
from mvae_fast.engines import cpp as ops


def environment() -> dict[str, Any]:
    """Versions, hardware and engines.

    Returns:
        Facts by name; under ``"engines"`` for each engine None where it is available, else the
        reason and the remedy.
    """
    return {
        "mvae_fast": __version__,
        "python": f"{platform.python_version()} on {platform.platform()}",
        **{name: version(name) for name in ("torch", "torchdiffeq", "numpy", "triton")},
        "compiler": _compiler(),
        "cpu": f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads",
        "kernels": _kernels(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "engines": {name: engines.why_missing(name) for name in engines.ENGINES},
    }


def environment_report() -> str:
    """What `environment` knows, as text.

    Returns:
        Several lines, one fact a line.

    Example:
        >>> print(environment_report())  # doctest: +ELLIPSIS
        mvae_fast    0.1.0
        python       3...
        engines
          ...
          reference  available
    """
    facts = environment()
    missing = facts.pop("engines")
    lines = [f"{name:<12} {value}" for name, value in facts.items()]
    lines.append("engines")
    for name, why in missing.items():
        lines.append(f"  {name:<10} {'available' if why is None else 'missing'}")
        if why is not None:
            lines.append(textwrap.indent(why, " " * 13))
    return "\n".join(lines)


def version(distribution: str) -> str:
    """Of a package, or that it is not there."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _kernels() -> str:
    """The instruction set of the C++ engine, and whether it has bfloat16."""
    if ops.capability() is None:
        return "none"
    bf16 = "yes" if ops.multiplies_bf16() else "no (float32 is taken)"
    return f"{ops.capability()}, products in bf16: {bf16}"


def _compiler() -> str:
    """The first line that the compiler which an installation would use says of itself."""
    named = shlex.split(os.environ.get("CXX", ""))[:1] or ["c++", "g++", "clang++"]
    path = next(filter(None, map(shutil.which, named)), None)
    if path is None:
        return "none found"
    answer = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    return (answer.stdout.splitlines() or [path])[0]


if __name__ == "__main__":
    print(environment_report())
