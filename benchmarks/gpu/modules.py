"""What `gpu_check.sh` needs of Python, said before any work: ``python -m benchmarks.gpu.modules``.

Imports nothing beyond the standard library, and nothing that it looks for.
"""

import importlib.metadata
import importlib.util
import platform
from collections.abc import Mapping

#: Module, and what is impossible without it.
NEEDED: Mapping[str, str] = {
    "torch": "nothing runs",
    "numpy": "nothing runs",
    "torchdiffeq": "mvae_fast does not import",
    "setuptools": "the extensions are not built",
    "ninja": "the extensions are not built",
    "pytest": "neither tests nor benchmarks run",
}
#: Module, and what goes on without it.
USEFUL: Mapping[str, str] = {
    "triton": "without the engine 'triton' and the compiled peers",
    "xdist": "with the tests one after the other (pytest-xdist)",
}


def main() -> int:
    """Print a line for each module; the exit status is 1 if one that is needed is missing."""
    print(f"python {platform.python_version()}")
    missing = [name for name in NEEDED if not _line(name, f"needed: without it {NEEDED[name]}")]
    for name, consequence in USEFUL.items():
        _line(name, f"goes on {consequence}")
    print(f"missing: {', '.join(missing)}" if missing else "all that is needed is there")
    return 1 if missing else 0


def _line(name: str, consequence: str) -> bool:
    found = importlib.util.find_spec(name) is not None
    print(f"{name:<12} {_version(name) if found else f'MISSING, {consequence}'}")
    return found


def _version(module: str) -> str:
    names = importlib.metadata.packages_distributions().get(module, [module])
    try:
        return importlib.metadata.version(names[0])
    except importlib.metadata.PackageNotFoundError:
        return "there, of unknown version"


if __name__ == "__main__":
    raise SystemExit(main())
