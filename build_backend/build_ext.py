"""The setuptools command that builds the extensions, or leaves the reasons why they are missing."""

import re
from collections.abc import Callable
from pathlib import Path

from setuptools.command import build_ext as setuptools_build_ext

from build_backend import compile, cuda
from build_backend.target_torch import ROOT, Torch, find_torch

Build = Callable[[Path, Torch | None, Path], None]

# Library, file with the reason why there is none, engine, how to build it.
EXTENSIONS: tuple[tuple[str, str, str, Build], ...] = (
    (compile.LIBRARY, "_build_error.txt", "C++", compile.build_library),
    (cuda.LIBRARY, "_cuda_build_error.txt", "CUDA", cuda.build_cuda_library),
)


class build_ext(setuptools_build_ext.build_ext):
    """Builds `mvae_fast/_C.abi3.so` and `_C_cuda.abi3.so`; the install goes on without either.

    The reason is left beside them, in `_build_error.txt` and `_cuda_build_error.txt`, which
    `mvae-fast info` quotes.
    """

    def run(self) -> None:
        package = self._package()
        package.mkdir(parents=True, exist_ok=True)
        for name, reason_name, engine, build in EXTENSIONS:
            library, reason = package / name, package / reason_name
            try:
                build(library, find_torch(), ROOT / "build" / "objects" / engine.lower())
            except compile.BuildError as error:
                library.unlink(missing_ok=True)
                reason.write_text(f"{without_directories(str(error))}\n", encoding="utf-8")
                self.warn(f"mvae_fast is built without its {engine} engine: {error}")
            else:
                reason.unlink(missing_ok=True)

    def get_outputs(self) -> list[str]:
        names = [name for extension in EXTENSIONS for name in extension[:2]]
        return [str(path) for name in names if (path := self._package() / name).is_file()]

    def get_output_mapping(self) -> dict[str, str]:
        return {}  # an in-place build writes into the source tree itself

    def _package(self) -> Path:
        # Absolute, because ninja works in the directory of the object files.
        return (ROOT if self.inplace else Path(self.build_lib).resolve()) / "mvae_fast"


def without_directories(text: str) -> str:
    """A compiler's words without the directories of this machine: a wheel takes them to others."""
    return re.sub(r"(?<![\w.])/(?:[^\s/:'\"]+/)+", "", text.replace(f"{ROOT}/", ""))
