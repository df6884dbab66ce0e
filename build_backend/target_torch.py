"""Find the torch to build against: the target's own, else that of the build environment.

A build with isolation runs in an environment of its own. Asking that environment for torch would
download whichever build of torch is newest, gigabytes of CUDA included, beside the one already
there. But pip runs the isolated build with the target's interpreter, whose `sysconfig` and `site`
paths still name the real site-packages: of a torch found there only headers and libraries are
read. Where there is none, as in uv's builds, the build asks for the version of constraints.txt.

The library uses torch's stable ABI alone, so whichever it is, the package runs beside every torch
from `MINIMUM` on, and requires no more than that.
"""

import importlib.metadata
import os
import re
import site
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MINIMUM = (2, 10)
"""The oldest torch whose stable C++ interface has all that csrc/solve.cpp uses."""

OVERRIDE = "MVAE_FAST_TORCH"
"""Optional environment variable: the site-packages directory whose torch to build against."""


@dataclass(frozen=True)
class Torch:
    """An installed torch: its package directory and its version."""

    directory: Path
    version: str

    @property
    def include(self) -> Path:
        return self.directory / "include"

    @property
    def lib(self) -> Path:
        return self.directory / "lib"


def pinned_requirement(constraints: Path = ROOT / "constraints.txt") -> str:
    """The line `torch==X.Y.Z` of the constraints file: the one place that names the pin."""
    pins = re.findall(r"^torch==\S+", constraints.read_text(encoding="utf-8"), re.MULTILINE)
    if len(pins) != 1:
        raise ValueError(f"{constraints} must pin torch exactly once, found {pins}")
    return str(pins[0])


def target_site_dirs() -> list[Path]:
    """Where the target interpreter keeps its packages, even when asked inside pip's isolation."""
    paths = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
    if sys.prefix == sys.base_prefix:  # no virtual environment: user installs count
        paths.append(site.getusersitepackages())
    return [Path(path) for path in dict.fromkeys(paths)]


def find_torch(
    environ: Mapping[str, str] = os.environ, directories: Iterable[Path] | None = None
) -> Torch | None:
    """The torch to build against, or None: the first in ``directories``, by default those of the
    target, then of the build.

    Raises:
        FileNotFoundError: The override names a directory without a usable torch.
    """
    if override := environ.get(OVERRIDE):
        torch = _torch_in(Path(override))
        if torch is None:
            oldest = ".".join(map(str, MINIMUM))
            raise FileNotFoundError(
                f"{OVERRIDE}={override} must name a site-packages directory that holds torch "
                f"{oldest} or newer"
            )
        return torch
    if directories is None:
        directories = [*target_site_dirs(), *map(Path, sys.path)]
    return next(filter(None, map(_torch_in, directories)), None)


def _torch_in(directory: Path) -> Torch | None:
    package = directory / "torch"
    # The header is looked for, too: some distributions split torch's headers off.
    if not (package / "include" / "torch" / "csrc" / "stable" / "tensor.h").is_file():
        return None
    for distribution in importlib.metadata.distributions(name="torch", path=[str(directory)]):
        release = re.match(r"(\d+)\.(\d+)", distribution.version)
        if release and tuple(map(int, release.groups())) >= MINIMUM:
            return Torch(package, distribution.version)
    return None
