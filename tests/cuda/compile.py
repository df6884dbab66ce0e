"""Compiles the CUDA engine's files for every architecture and reads what ptxas says of them."""

from __future__ import annotations

import re
import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from build_backend.cuda import DEFAULT_ARCHITECTURES, NVCC_FLAGS

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))


@dataclass(frozen=True)
class Function:
    """One function of the device code: registers are None for one that kernels call."""

    source: str
    architecture: str
    name: str
    probes: bool
    registers: int | None
    stack: int
    spills: int


Job = tuple[Path, str]
ALL: list[Job] = [(source, name) for source in SOURCES for name in DEFAULT_ARCHITECTURES]


def report(nvcc: Path, directory: Path, jobs: list[Job], workers: int = 2) -> list[Function]:
    """What ptxas reports of files on architectures."""

    def compile_one(job: Job) -> list[Function]:
        source, name = job
        digits = name.replace(".", "")
        output = directory / f"{source.stem}-{digits}.cubin"
        command = [nvcc, *NVCC_FLAGS, f"-gencode=arch=compute_{digits},code=sm_{digits}"]
        # Without the host's half, of which ptxas knows nothing.
        command += ["-Xptxas", "-v", "-I", ROOT / "csrc", "-cubin", source, "-o", output]
        process = subprocess.run(
            [str(x) for x in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if process.returncode != 0:
            raise RuntimeError(f"{source.name} for {name}:\n{process.stdout}")
        return parse(process.stdout, source.name, name)

    with ThreadPoolExecutor(workers) as pool:
        return [function for found in pool.map(compile_one, jobs) for function in found]


_REPORTING = """#!/bin/sh
for last; do :; done
case "$last" in
  *.o) {nvcc} "$@" -Xptxas -v > "$last.txt" 2>&1 || {{ cat "$last.txt"; exit 1; }} ;;
  *) exec {nvcc} "$@" ;;
esac
"""


def reporting_toolkit(nvcc: Path, home: Path) -> Path:
    """A `home` for $CUDA_HOME whose nvcc leaves ptxas's report beside each object file."""
    script = home / "bin" / "nvcc"
    script.parent.mkdir(parents=True)
    script.write_text(_REPORTING.format(nvcc=shlex.quote(str(nvcc))))
    script.chmod(0o755)
    return home


_PROPERTIES = re.compile(
    r"Function properties for (\S+)\n"
    r"\s+(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
    r"(?:\n.*?Used (\d+) registers)?"
)


def parse(text: str, source: str, architecture: str) -> list[Function]:
    """The functions of ptxas's -v report."""
    return [
        Function(
            source,
            architecture,
            re.sub(r"^_ZN9mvae_fast4cuda\d+(\w+?)(?:INS|Ev).*", r"\1", mangled),
            "Lb1E" in mangled,
            None if registers is None else int(registers),
            int(stack),
            int(stores) + int(loads),
        )
        for mangled, stack, stores, loads, registers in _PROPERTIES.findall(text)
        for registers in [registers or None]
    ]


if __name__ == "__main__":
    import tempfile

    from build_backend.cuda import find_nvcc

    found_nvcc = find_nvcc()
    if found_nvcc is None:
        raise SystemExit("nvcc is missing")
    with tempfile.TemporaryDirectory() as scratch:
        titles = ("file", "arch", "function", "probes", "registers", "stack", "spills")
        print("{:18} {:>5} {:16} {:>6} {:>9} {:>6} {:>7}".format(*titles))
        for x in report(found_nvcc, Path(scratch), ALL):
            print(
                f"{x.source:18} {x.architecture:>5} {x.name:16} {'yes' if x.probes else '-':>6} "
                f"{'-' if x.registers is None else x.registers:>9} {x.stack:>6} {x.spills:>7}"
            )
