"""The commands that build the extension, and what happens when they cannot run."""

from __future__ import annotations

import ctypes
import platform
import shlex
from pathlib import Path

import pytest

from build_backend.compile import find_compiler, find_ninja, ninja_file, plan, target_machine
from build_backend.target_torch import Torch

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler")
TORCH = Torch(Path("/site/torch"), "2.13.0")
INPLACE = ("setup.py", "-q", "build_ext", "--inplace")


def commands(machine):
    steps = plan(Path("/lib/_C.abi3.so"), TORCH, Path("/objects"), ["c++"], machine)
    return {step.output.name: step.command for step in steps}


def test_one_kernel_object_per_instruction_set():
    by_name = commands("x86_64")
    isa = {name: set(command) for name, command in by_name.items() if "kernels" in name}
    assert sorted(isa) == [
        f"cpu-kernels-{i}.o" for i in ("avx2", "avx512", "avx512_bf16", "baseline")
    ]
    assert "-mavx512f" in isa["cpu-kernels-avx512.o"]
    assert "-mavx2" in isa["cpu-kernels-avx2.o"]
    assert not any(flag.startswith("-m") for flag in isa["cpu-kernels-baseline.o"])


def test_other_machines_get_the_baseline_alone():
    by_name = commands("aarch64")
    assert [name for name in by_name if "kernels" in name] == ["cpu-kernels-baseline.o"]
    assert not any("X86" in word or word.startswith("-m") for c in by_name.values() for word in c)


def test_a_cross_build_says_for_which_machine():
    """As Python's own tools are told it: the wheel's tag is of that machine, too."""
    for host, machine in (("linux-aarch64", "aarch64"), ("macosx-11.0-arm64", "arm64")):
        assert target_machine({"_PYTHON_HOST_PLATFORM": host}) == machine
    assert target_machine({}) == platform.machine()


@pytest.mark.parametrize("machine", ["x86_64", "AMD64", "arm64"])
def test_few_files_see_torch_and_nothing_is_tuned_to_the_builder(machine):
    by_name = commands(machine)
    see_torch = [n for n, c in by_name.items() if n.endswith(".o") and str(TORCH.include) in c]
    assert see_torch == ["adaptive.o", "log_det.o", "machine.o", "solve.o"]
    for name in see_torch:
        assert "-DTORCH_TARGET_VERSION=0x020a000000000000" in by_name[name]
    words = {word for command in by_name.values() for word in command}
    assert not words & {"-march=native", "-ffast-math", "-Ofast"}


def test_ninja_file_escapes_paths():
    steps = plan(Path("/a b/c$d.so"), TORCH, Path("/a b"), ["c++"], "arm64")
    text = ninja_file(steps)
    assert "build /a$ b/c$$d.so: link" in text
    assert shlex.quote("/a b/c$d.so").replace("$", "$$") in text


@needs_compiler
@pytest.mark.parametrize("ninja", [True, False], ids=["ninja", "no ninja"])
def test_builds_in_place_and_follows_headers(dummy_tree, python, monkeypatch, ninja):
    if ninja and find_ninja() is None:
        pytest.skip("ninja is not installed")
    if not ninja:
        backend = dummy_tree / "build_backend" / "compile.py"
        backend.write_text(backend.read_text().replace('which("ninja"', 'which("no-ninja"'))
    library = dummy_tree / "mvae_fast" / "_C.abi3.so"
    x86 = len([name for name in commands(None) if "kernels" in name]) > 1
    python(*INPLACE, cwd=dummy_tree)
    assert ctypes.CDLL(str(library)).entry() == (111 if x86 else 100)
    header = dummy_tree / "csrc" / "problem.h"
    header.write_text(header.read_text().replace("return 1", "return 2"))
    python(*INPLACE, cwd=dummy_tree)
    # a name of its own, because the loader caches a library by its path
    renamed = library.rename(library.with_name("second.so"))
    assert ctypes.CDLL(str(renamed)).entry() == (222 if x86 else 200)


@needs_compiler
def test_a_failed_build_leaves_the_reason_and_no_stale_library(dummy_tree, python):
    package = dummy_tree / "mvae_fast"
    library, reason = package / "_C.abi3.so", package / "_build_error.txt"
    source = dummy_tree / "csrc" / "solve.cpp"
    good = source.read_text()
    python(*INPLACE, cwd=dummy_tree)
    assert library.exists() and not reason.exists()
    source.write_text(good.replace("best()", "wurst()", 2).replace("int wurst();", ""))
    output = python(*INPLACE, cwd=dummy_tree)
    assert not library.exists()
    assert "compiling failed" in reason.read_text() and "wurst" in reason.read_text()
    assert "without its C++ engine" in output
    source.write_text(good)
    python(*INPLACE, cwd=dummy_tree)
    assert library.exists() and not reason.exists()


@needs_compiler
def test_undefined_symbols_fail_the_build_not_the_import(dummy_tree, python):
    (dummy_tree / "csrc" / "cpu" / "dispatch.cpp").unlink()
    python(*INPLACE, cwd=dummy_tree)
    assert "best()" in (dummy_tree / "mvae_fast" / "_build_error.txt").read_text()


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({"PATH": "", "CXX": ""}, "no C++ compiler was found"),
        ({"CXX": "no-such-compiler"}, "no C++ compiler was found: $CXX, no-such-compiler"),
        ({"MVAE_FAST_SKIP_EXT": "1"}, "MVAE_FAST_SKIP_EXT was set"),
    ],
)
def test_the_reason_says_what_is_missing(dummy_tree, python, environ, reason):
    python(*INPLACE, cwd=dummy_tree, **environ)
    assert reason in (dummy_tree / "mvae_fast" / "_build_error.txt").read_text()


def test_missing_sources_are_named(dummy_tree, python):
    if find_compiler() is None:
        pytest.skip("no C++ compiler")
    (dummy_tree / "csrc" / "solve.cpp").unlink()
    python(*INPLACE, cwd=dummy_tree)
    assert "csrc/solve.cpp" in (dummy_tree / "mvae_fast" / "_build_error.txt").read_text()
