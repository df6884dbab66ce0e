"""The setuptools command that builds the extension, or leaves the reason why it is missing."""

from __future__ import annotations

from pathlib import Path

from setuptools.command import build_ext as setuptools_build_ext

from build_backend.compile import LIBRARY, BuildError, build_library
from build_backend.target_torch import ROOT, find_torch

REASON = "_build_error.txt"


class build_ext(setuptools_build_ext.build_ext):
    """Builds `mvae_fast/_C.abi3.so`; when that is impossible the install goes on without it.

    The reason is left in `mvae_fast/_build_error.txt`, which `mvae-fast info` quotes.
    """

    def run(self) -> None:
        library, reason = self._package() / LIBRARY, self._package() / REASON
        reason.parent.mkdir(parents=True, exist_ok=True)
        try:
            build_library(library, find_torch(), ROOT / "build" / "objects")
        except BuildError as error:
            library.unlink(missing_ok=True)
            reason.write_text(f"{error}\n", encoding="utf-8")
            self.warn(f"mvae_fast is built without its C++ engine: {error}")
        else:
            reason.unlink(missing_ok=True)

    def get_outputs(self) -> list[str]:
        return [
            str(path) for name in (LIBRARY, REASON) if (path := self._package() / name).is_file()
        ]

    def get_output_mapping(self) -> dict[str, str]:
        return {}  # an in-place build writes into the source tree itself

    def _package(self) -> Path:
        # Absolute, because ninja works in the directory of the object files.
        return (ROOT if self.inplace else Path(self.build_lib).resolve()) / "mvae_fast"
