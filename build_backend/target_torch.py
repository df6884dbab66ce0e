"""Find the torch of the interpreter that mvae_fast is being installed for.

A build with isolation runs in an environment of its own. Asking that environment for torch would
download whichever build of torch is newest, gigabytes of CUDA included, beside the one already
there. But pip runs the isolated build with the target's interpreter, whose `sysconfig` and `site`
paths still name the real site-packages: a torch found there is *borrowed*, only its headers and
libraries are read. Where there is none, the build asks for the pinned version of constraints.txt.
"""

from __future__ import annotations

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
"""The oldest torch whose stable C++ interface has all that csrc/ops.cpp uses."""

OVERRIDE = "MVAE_FAST_TORCH"
"""Optional environment variable: the site-packages directory whose torch to build against."""

# Written when a frontend is asked to install the pin, so that the later hooks, which run in
# processes of their own, know that the torch they find was put there for the build.
_PIN_RECORD = ROOT / "build" / "pinned-torch-environment"


@dataclass(frozen=True)
class Torch:
    """An installed torch: its package directory, its version, and whose it is."""

    directory: Path
    version: str
    borrowed: bool

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
    environ: Mapping[str, str] = os.environ,
    target_dirs: Iterable[Path] | None = None,
    import_dirs: Iterable[Path] | None = None,
) -> Torch | None:
    """The torch to build against, or None.

    Args:
        environ: holds the override, if any.
        target_dirs: site directories of the target interpreter; a torch in them is borrowed.
        import_dirs: site directories of the build environment; a torch in them is the pinned one.

    Raises:
        FileNotFoundError: the override names a directory without a usable torch.
    """
    if override := environ.get(OVERRIDE):
        torch = _torch_in(Path(override), borrowed=True)
        if torch is None:
            oldest = ".".join(map(str, MINIMUM))
            raise FileNotFoundError(
                f"{OVERRIDE}={override} must name a site-packages directory that holds torch "
                f"{oldest} or newer"
            )
        return torch
    if target_dirs is None:
        target_dirs = target_site_dirs()
    if import_dirs is None:
        import_dirs = map(Path, sys.path)
    for directories, borrowed in ((target_dirs, True), (import_dirs, False)):
        for directory in directories:
            if torch := _torch_in(directory, borrowed):
                return torch
    return None


def runtime_requirement(torch: Torch | None) -> str:
    """What the installed package requires: a torch that is there is kept, else the pin is used.

    A bare lower bound in a fresh environment would let the installer pick the newest torch instead
    of the one that was built against.
    """
    if torch is not None and torch.borrowed:
        return f"torch>={'.'.join(map(str, MINIMUM))}"
    return pinned_requirement()


def record_pin_request() -> None:
    """Remember that this environment gets its torch from us, as `build` and uv make fresh ones."""
    _PIN_RECORD.parent.mkdir(exist_ok=True)
    _PIN_RECORD.write_text(sys.prefix, encoding="utf-8")


def _installed_on_request(version: str) -> bool:
    return (
        _PIN_RECORD.is_file()
        and _PIN_RECORD.read_text(encoding="utf-8") == sys.prefix
        and f"torch=={version.partition('+')[0]}" == pinned_requirement()
    )


def _torch_in(directory: Path, borrowed: bool) -> Torch | None:
    package = directory / "torch"
    # The header is looked for, too: some distributions split torch's headers off.
    if not (package / "include" / "torch" / "csrc" / "stable" / "tensor.h").is_file():
        return None
    for distribution in importlib.metadata.distributions(name="torch", path=[str(directory)]):
        release = re.match(r"(\d+)\.(\d+)", distribution.version)
        if release and tuple(map(int, release.groups())) >= MINIMUM:
            on_request = _installed_on_request(distribution.version)
            return Torch(package, distribution.version, borrowed and not on_request)
    return None
