"""Compile csrc/cuda/ into `mvae_fast/_C_cuda.abi3.so`, where there are nvcc and a torch with CUDA.

The kernels know nothing of torch, and their face, csrc/cuda/solve.cpp, only its stable ABI; CUDA's
runtime is linked statically and torch's current stream looked up when it is first needed. So the
library loads, and can be tested as far as that goes, beside a torch without CUDA as well.

torch.utils.cpp_extension's CUDAExtension is not used: it does not work beside such a torch.
"""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from build_backend.compile import (
    FLAGS,
    SKIP,
    TORCH_FLAGS,
    BuildError,
    Step,
    compile_step,
    find_compiler,
    run_steps,
    skip_requested,
)
from build_backend.target_torch import ROOT, Torch

LIBRARY = "_C_cuda.abi3.so"
FORCE = "MVAE_FAST_FORCE_CUDA"
"""Optional environment variable: set to 1 to build even if torch has no CUDA."""

ARCHITECTURES = "TORCH_CUDA_ARCH_LIST"
"""Optional environment variable, torch's own: compute capabilities such as ``8.0;9.0+PTX``."""

# A100, H100 and H200, B200; later ones compile the last's PTX when they first load it.
DEFAULT_ARCHITECTURES = ("8.0", "9.0", "10.0")
NVCC_FLAGS = "-std=c++17 -O3 -Xcompiler -fPIC,-fvisibility=hidden -cudart static".split()


def forced(environ: Mapping[str, str] = os.environ) -> bool:
    return environ.get(FORCE, "0") not in ("", "0")


def find_nvcc(environ: Mapping[str, str] = os.environ) -> Path | None:
    """nvcc of $CUDA_HOME, else the one on the PATH, else that of /usr/local/cuda."""
    homes = [Path(environ["CUDA_HOME"])] if environ.get("CUDA_HOME") else []
    on_path = shutil.which("nvcc", path=environ.get("PATH"))
    candidates = [home / "bin" / "nvcc" for home in homes]
    candidates += [Path(on_path)] if on_path else []
    candidates.append(Path("/usr/local/cuda/bin/nvcc"))
    return next((path for path in candidates if path.is_file()), None)


def torch_cuda(torch: Torch) -> str | None:
    """The CUDA version that a torch was built for, read without importing it."""
    version = torch.directory / "version.py"
    text = version.read_text(encoding="utf-8") if version.is_file() else ""
    found = re.search(r"^cuda\b[^=]*=\s*['\"]([^'\"]+)['\"]", text, re.MULTILINE)
    return found[1] if found else None


def code_flags(wanted: str | None, supported: set[str]) -> list[str]:
    """nvcc's -gencode flags for a list like ``8.0;9.0+PTX``, or for the defaults it supports."""
    if not wanted:
        names = [x for x in DEFAULT_ARCHITECTURES if f"compute_{_digits(x)}" in supported]
        if not names:
            raise BuildError(f"nvcc knows none of {', '.join(DEFAULT_ARCHITECTURES)}")
        names[-1] += "+PTX"
    else:
        names = wanted.replace(";", " ").split()
    flags = []
    for name in names:
        if not re.fullmatch(r"\d+\.\d[af]?(\+PTX)?", name):
            raise BuildError(
                f"{ARCHITECTURES} holds {name!r}, expected entries such as 9.0 or 9.0+PTX"
            )
        digits = _digits(name.removesuffix("+PTX"))
        flags.append(f"-gencode=arch=compute_{digits},code=sm_{digits}")
        if name.endswith("+PTX"):
            flags.append(f"-gencode=arch=compute_{digits},code=compute_{digits}")
    return flags


def _digits(name: str) -> str:
    return name.replace(".", "")


def build_cuda_library(
    library: Path, torch: Torch | None, objects: Path, environ: Mapping[str, str] = os.environ
) -> None:
    """Bring `library` up to date, with its intermediate files under `objects`."""
    if skip_requested(environ):
        raise BuildError(f"{SKIP} was set; remedy: unset it")
    compiler = find_compiler(environ)
    if torch is None or compiler is None:
        raise BuildError("it needs torch >= 2.10 and a C++ compiler; remedy: install both")
    version = torch_cuda(torch)
    if version is None and not forced(environ):
        raise BuildError(
            f"torch {torch.version}, to build against, has no CUDA; remedy: install one that has"
        )
    nvcc = find_nvcc(environ)
    if nvcc is None:
        raise BuildError(
            "nvcc was found neither in $CUDA_HOME nor on the PATH; remedy: install the CUDA toolkit"
        )
    own = _output(nvcc, "--version")
    release = re.search(r"release (\d+)", own)
    if version is not None and release and int(release[1]) > int(version.split(".")[0]):
        raise BuildError(
            f"nvcc is of CUDA {release[1]} and torch of {version}, whose driver may be too old "
            "for it; remedy: put the nvcc of torch's version into $CUDA_HOME"
        )
    supported = set(_output(nvcc, "--list-gpu-arch").split())
    code = code_flags(environ.get(ARCHITECTURES), supported)
    run_steps(plan(library, torch, objects, compiler, nvcc, code), objects)


def plan(
    library: Path, torch: Torch, objects: Path, compiler: list[str], nvcc: Path, code: list[str]
) -> list[Step]:
    """The commands that make `library`: one per object file, then the link."""
    csrc = ROOT / "csrc"
    host = ["-ccbin", compiler[0]]
    kernels = [str(nvcc), *host, *NVCC_FLAGS, *code, "-I", str(csrc)]
    face = [*compiler, *FLAGS, *TORCH_FLAGS, "-I", str(csrc), "-isystem", str(torch.include)]

    sources = sorted(csrc.glob("cuda/*.cu"))
    steps = [compile_step(kernels, source, objects / f"{source.stem}.o") for source in sources]
    steps.append(compile_step(face, csrc / "cuda" / "solve.cpp", objects / "solve.o"))
    outputs = tuple(step.output for step in steps)
    link = [str(nvcc), *host, "-shared", "-cudart", "static", "-o", str(library)]
    link += [*map(str, outputs), "-L", str(torch.lib), "-ltorch_cpu", "-ldl"]
    link += ["-Xlinker", "--no-undefined"]
    return [*steps, Step("link", library, outputs, tuple(link))]


def _output(*command: object) -> str:
    try:
        return subprocess.run(
            [str(x) for x in command], stdout=subprocess.PIPE, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise BuildError(f"{shlex.join(map(str, command))} does not run: {error}") from error
