"""Source trees and fake site-packages to build in, so that the real ones stay clean."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Torch-free stand-ins for csrc/, with the same shape: they compile in a fraction of a second.
DUMMY_CSRC = {
    "problem.h": "inline int answer() { return 1; }\n",
    "solve.cpp": '#include "problem.h"\nint best();\nextern "C" '
    '__attribute__((visibility("default"))) int entry() { return best(); }\n',
    "cpu/dispatch.cpp": """
namespace baseline { int isa(); }
#ifdef MVAE_FAST_X86_DISPATCH
namespace avx2 { int isa(); }
namespace avx512 { int isa(); }
int best() { return avx512::isa() + 10 * avx2::isa() + 100 * baseline::isa(); }
#else
int best() { return 100 * baseline::isa(); }
#endif
""",
    "cpu/kernels.cpp": '#include "problem.h"\n'
    "namespace MVAE_FAST_ISA { int isa() { return answer(); } }\n",
}


@pytest.fixture
def source_tree(tmp_path: Path) -> Path:
    """A copy of what the build reads, without anything that a build wrote."""
    tree = tmp_path / "source tree"  # the space is on purpose
    ignore = shutil.ignore_patterns("__pycache__", "*.so", "_*build_error.txt")
    tree.mkdir()
    for name in (".ci", "build_backend", "csrc", "hub", "kernels", "mvae_fast", "tests"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=ignore)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, tree)
    return tree


@pytest.fixture
def dummy_tree(source_tree: Path) -> Path:
    """The same with a tiny csrc/."""
    shutil.rmtree(source_tree / "csrc", ignore_errors=True)
    for name, text in DUMMY_CSRC.items():
        path = source_tree / "csrc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return source_tree


@pytest.fixture
def python() -> Callable[..., str]:
    """Run this interpreter in a directory and return what it prints; fail with its output."""

    def run(*arguments: str | Path, cwd: Path, **environ: str) -> str:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("MVAE_FAST_")}
        process = subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=cwd,
            env=clean | environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.returncode == 0, process.stdout
        return process.stdout

    return run


@pytest.fixture
def make_torch() -> Callable[..., Path]:
    """Lay out what the build looks at of a torch installation, and return its site-packages."""

    def make(site_dir: Path, version: str, headers: bool = True) -> Path:
        include = site_dir / "torch" / "include" / "torch" / "csrc" / "stable"
        metadata = site_dir / f"torch-{version}.dist-info" / "METADATA"
        metadata.parent.mkdir(parents=True)
        metadata.write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
        if headers:
            include.mkdir(parents=True)
            (include / "tensor.h").touch()
        return site_dir

    return make
