"""Compile csrc/ into the one shared library `mvae_fast/_C.abi3.so`, and explain when that fails.

csrc/*.cpp sees torch's headers (stable ABI only), csrc/cpu/*.cpp does not. csrc/cpu/kernels.cpp is
compiled once per instruction set, each time into a namespace of its own; the library picks one at
run time, so no `-march=native` and one binary for every CPU. The library has no Python symbols: it
is loaded by `torch.ops.load_library` and works with every Python and every torch from 2.10 on.

torch.utils.cpp_extension is not used: it imports torch, links Python-bound modules and gives all
files the same flags.
"""

import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from build_backend.target_torch import OVERRIDE, ROOT, Torch

LIBRARY = "_C.abi3.so"
SKIP = "MVAE_FAST_SKIP_EXT"
"""Optional environment variable: set to 1 to install without compiling."""

# No fast-math: errno and the trap state are all that keeps gcc from vectorising exp.
FLAGS = (
    "-std=c++17 -O3 -fPIC -fvisibility=hidden -fno-math-errno -fno-trapping-math -Wall -Wextra"
).split()
TORCH_FLAGS = ["-DTORCH_TARGET_VERSION=0x020a000000000000"]  # torch 2.10
DISPATCH_FLAGS = ["-DMVAE_FAST_X86_DISPATCH=1"]
AVX512_FLAGS = (
    "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mprefer-vector-width=512"
).split()
ISA_FLAGS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": AVX512_FLAGS,
    "avx512_bf16": [*AVX512_FLAGS, "-mavx512bf16"],
}
ERROR_LINES = 30


class BuildError(Exception):
    """The extension cannot be built; the message says why, for a person."""


@dataclass(frozen=True)
class Step:
    """One command that writes one file; a compiler also lists the headers in `<output>.d`."""

    rule: Literal["compile", "link"]
    output: Path
    inputs: tuple[Path, ...]
    command: tuple[str, ...]


def skip_requested(environ: Mapping[str, str] = os.environ) -> bool:
    return environ.get(SKIP, "0") not in ("", "0")


def find_compiler(environ: Mapping[str, str] = os.environ) -> list[str] | None:
    """The C++ compiler's command: $CXX, else the first of c++, g++ and clang++ on the PATH."""
    path = environ.get("PATH")
    if cxx := shlex.split(environ.get("CXX", "")):
        return cxx if shutil.which(cxx[0], path=path) else None
    for name in ("c++", "g++", "clang++"):
        if found := shutil.which(name, path=path):
            return [found]
    return None


def target_machine(environ: Mapping[str, str] = os.environ) -> str:
    """The processor to build for: this one, or what a cross build tells Python's own tools."""
    return environ.get("_PYTHON_HOST_PLATFORM", "").rpartition("-")[2] or platform.machine()


def build_library(library: Path, torch: Torch | None, objects: Path) -> None:
    """Bring `library` up to date, with its intermediate files under `objects`.

    Raises:
        BuildError: With the reason, ending in the compiler's last lines where it ran.
    """
    if skip_requested():
        raise BuildError(f"{SKIP} was set; remedy: unset it")
    if sys.platform == "win32":
        raise BuildError("it is for Linux and macOS only; remedy: change to one of them")
    compiler = find_compiler()
    if compiler is None:
        named = os.environ.get("CXX")
        looked_for = f"$CXX, {named}, is none" if named else "neither c++, g++ nor clang++ is there"
        raise BuildError(f"no C++ compiler was found: {looked_for}; remedy: install g++ or clang")
    if torch is None:
        raise BuildError(
            "no torch >= 2.10 was found to build against; remedy: install one, or name one "
            f"elsewhere by {OVERRIDE}=<its site-packages directory>,"
        )
    if not (ROOT / "csrc" / "solve.cpp").is_file():
        raise BuildError("csrc/solve.cpp is missing; remedy: take a complete source tree")
    run_steps(plan(library, torch, objects, compiler), objects)


def plan(
    library: Path, torch: Torch, objects: Path, compiler: list[str], machine: str | None = None
) -> list[Step]:
    """The commands that make `library`: one per object file, then the link."""
    x86 = (machine or target_machine()).lower() in ("x86_64", "amd64")
    csrc = ROOT / "csrc"
    flags = [*FLAGS, *(DISPATCH_FLAGS if x86 else []), "-I", str(csrc)]
    torch_flags = [*TORCH_FLAGS, "-isystem", str(torch.include)]

    def step(source: Path, name: str, extra: list[str]) -> Step:
        return compile_step([*compiler, *flags, *extra], source, objects / f"{name}.o")

    steps = [step(source, source.stem, torch_flags) for source in sorted(csrc.glob("*.cpp"))]
    for source in sorted(csrc.glob("cpu/*.cpp")):
        if source.name == "kernels.cpp":
            for isa in ISA_FLAGS if x86 else ("baseline",):
                extra = [f"-DMVAE_FAST_ISA={isa}", *ISA_FLAGS[isa]]
                steps.append(step(source, f"cpu-kernels-{isa}", extra))
        else:
            steps.append(step(source, f"cpu-{source.stem}", []))

    outputs = tuple(step.output for step in steps)
    link = [*compiler, "-shared", "-o", str(library), *map(str, outputs)]
    link += ["-L", str(torch.lib), "-ltorch_cpu"]
    if sys.platform.startswith("linux"):
        link.append("-Wl,--no-undefined")  # a missing symbol fails here, not when the user loads it
    return [*steps, Step("link", library, outputs, tuple(link))]


def compile_step(command: list[str], source: Path, output: Path) -> Step:
    files = ["-MD", "-MF", f"{output}.d", "-c", str(source), "-o", str(output)]
    return Step("compile", output, (source,), (*command, *files))


def find_ninja() -> str | None:
    # The scripts directory first: a virtual environment's python may run without it on the PATH.
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    return shutil.which("ninja", path=path)


def run_steps(steps: list[Step], objects: Path) -> None:
    """Run the steps with ninja: in parallel, and only those whose inputs or flags changed."""
    for folder in (objects, steps[-1].output.parent):
        folder.mkdir(parents=True, exist_ok=True)
    ninja = find_ninja()
    if ninja is None:  # building without isolation needs no more than setuptools: do all, in order
        for step in steps:
            _call(list(step.command))
        return
    (objects / "build.ninja").write_text(ninja_file(steps), encoding="utf-8")
    jobs = os.environ.get("MAX_JOBS")
    _call([ninja, "-C", str(objects), *(["-j", jobs] if jobs else [])])


def ninja_file(steps: list[Step]) -> str:
    def escape(path: Path) -> str:
        return str(path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")

    lines = ["rule compile", "  command = $line", "  depfile = $out.d", "  deps = gcc"]
    lines += ["  description = $out", "rule link", "  command = $line", "  description = $out", ""]
    for step in steps:
        lines.append(
            f"build {escape(step.output)}: {step.rule} {' '.join(map(escape, step.inputs))}"
        )
        lines.append("  line = " + shlex.join(step.command).replace("$", "$$"))
        lines.append("")
    return "\n".join(lines)


def _call(command: list[str]) -> None:
    try:
        process = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
    except OSError as error:
        raise BuildError(f"{command[0]} does not run: {error.strerror}") from error
    if process.returncode != 0:
        tail = process.stdout.splitlines()[-ERROR_LINES:]
        raise BuildError("\n".join(["compiling failed, and the last lines were", *tail]))
