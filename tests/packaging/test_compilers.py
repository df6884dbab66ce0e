"""The C++ engine by other compilers than that of the build, and for another processor."""

from __future__ import annotations

import dataclasses
import platform
import shutil
import subprocess

import pytest

from build_backend.compile import DISPATCH_FLAGS, FLAGS, ISA_FLAGS, LIBRARY, plan, run_steps
from build_backend.target_torch import ROOT, find_torch
from mvae_fast.engines import cpp as ops

X86 = platform.machine().lower() in ("x86_64", "amd64")
AARCH64 = ("aarch64-linux-gnu-g++", "clang++ --target=aarch64-linux-gnu")
# gcc 12 warns of its own AVX-512 headers: only clang, and gcc for other processors, must be silent.
SILENT = ["-Werror"]


def compiler(command, *tools):
    """A compiler's command, where it and these tools are installed."""
    program, *target = command.split()
    for tool in (program, *tools):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    return [program, *target]


def run(*command):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def primitives(folder, cxx, isa, *flags):
    """tests/cpp/primitives.cpp, compiled as csrc/cpu/kernels.cpp is."""
    program = folder / "primitives"
    source = ROOT / "tests" / "cpp" / "primitives.cpp"
    flags = [*FLAGS, f"-DMVAE_FAST_ISA={isa}", *ISA_FLAGS[isa], *flags, "-I", ROOT / "csrc"]
    run(*cxx, *flags, source, "-o", program)
    return program


@pytest.mark.parametrize("isa", ops.capabilities() or ("baseline",))
@pytest.mark.parametrize("name", ["g++", "clang++"])
def test_primitives_here(tmp_path, name, isa):
    flags = [*(DISPATCH_FLAGS if X86 else []), *(SILENT if name == "clang++" else [])]
    assert f"{isa}: " in run(primitives(tmp_path, compiler(name), isa, *flags))


@pytest.mark.parametrize("command", AARCH64)
def test_primitives_on_aarch64(tmp_path, command):
    cxx = compiler(command, AARCH64[0], "qemu-aarch64")
    program = primitives(tmp_path, cxx, "baseline", *SILENT)
    assert "baseline: " in run("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", program)


@pytest.mark.parametrize("command", AARCH64)
def test_kernels_for_aarch64(tmp_path, command):
    cxx = compiler(command, AARCH64[0])
    steps = plan(tmp_path / LIBRARY, find_torch(), tmp_path, cxx, "aarch64")
    kernels = [step for step in steps if step.output.name.startswith("cpu-")]
    assert len(kernels) == 2
    for step in kernels:
        run(*step.command, "-O0", *SILENT)


def test_the_engine_by_clang(source_tree, python):
    """Every instruction set compiles without a warning; values and gradients are the oracle's."""
    cxx = compiler("clang++")
    objects = source_tree / "build" / "clang"
    objects.mkdir(parents=True)
    steps = plan(source_tree / "mvae_fast" / LIBRARY, find_torch(), objects, cxx)
    quick = [  # with the whole of -O3 it takes twice as long
        dataclasses.replace(step, command=(*step.command, "-O1", *SILENT))
        if step.rule == "compile"
        else step
        for step in steps
    ]
    run_steps(quick, objects)
    engine = "from mvae_fast.engines import cpp; print(cpp.__file__, cpp.capabilities())"
    found = python("-c", engine, cwd=source_tree, PYTHONPATH=str(source_tree))
    assert str(source_tree) in found and "baseline" in found
    tests = ["tests/engines/test_capabilities.py", "tests/core/test_closed_forms.py"]
    said = python("-m", "pytest", "-q", *tests, cwd=source_tree, PYTHONPATH=str(source_tree))
    assert "passed" in said and "failed" not in said and "skipped" not in said
