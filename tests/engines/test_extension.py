"""Libraries that are damaged or of another version: missing, with a remedy."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mvae_fast.engines import cpp as ops
from mvae_fast.engines import extension

PACKAGE = extension.PACKAGE
LIBRARY = PACKAGE / "_C.abi3.so"

needs_library = pytest.mark.skipif(ops.why_missing() is not None, reason="needs the C++ engine")


def load(package: Path) -> str | None:
    loader = torch.ops.load_library
    return extension.load(loader, "_C", "_build_error.txt", "the C++ extension", "g++", package)


def run(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, (done.returncode, done.stderr)
    return done.stdout


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"a text\n", b"\x7fELF\x02\x01" + bytes(90)])
def test_what_is_no_library(tmp_path, content):
    (tmp_path / "_C.abi3.so").write_bytes(content)
    reason = load(tmp_path)
    assert reason is not None
    assert "_C.abi3.so does not load: " in reason and "`pip install .` again" in reason


@pytest.mark.slow
@needs_library
@pytest.mark.skipif(sys.platform != "linux", reason="about ELF files")
def test_a_library_that_was_cut_short(tmp_path):
    """In a process of its own, which a bus error in the loader would end."""
    size = LIBRARY.stat().st_size
    code = f"""
from pathlib import Path
from tests.engines.test_extension import LIBRARY, load
package = Path({str(tmp_path)!r})
whole = LIBRARY.read_bytes()
for length in (64, 300, 4096, 20_000, {size // 2}, {size * 4 // 5}):
    (package / "_C.abi3.so").write_bytes(whole[:length])
    print(load(package))
"""
    reasons = run(code, Path(__file__).parents[2]).splitlines()
    assert len(reasons) == 6
    assert all("does not load: the file was cut short; remedy: " in reason for reason in reasons)


@pytest.mark.slow
@needs_library
@pytest.mark.parametrize(
    ("schema", "other", "fault"),
    [
        (b"bool residual, bool exact", b"bool residual, bool exalt", "has another solve"),
        (b"cpu_peak(int repeats)", b"cpu_poke(int repeats)", "lacks cpu_peak"),
    ],
)
def test_a_library_of_another_version(tmp_path, schema, other, fault):
    """As after `git pull` without a build: the package imports, and its reference works."""
    package = tmp_path / "mvae_fast"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    library = LIBRARY.read_bytes()
    assert schema in library
    (package / LIBRARY.name).write_bytes(library.replace(schema, other))
    code = """
import sys, torch
sys.path.insert(0, "")
from mvae_fast import FastCNF, ODEfunc, ODEnet, __file__, engines
from mvae_fast.engines import cpp as ops
print(__file__, ops.capabilities(), ops.capability())
print(engines.why_missing("cpp"))
print(engines.why_missing("cuda"))
net = ODEnet((4,), (2,), layer_type="ignore")
z, logp = FastCNF(ODEfunc(net), trace="exact")(torch.zeros(3, 2), torch.zeros(3, 1))
print(z.shape)
"""
    where, cpp, cuda, shape = run(code, tmp_path).splitlines()
    assert where == f"{package / '__init__.py'} () None"
    expected = f"the C++ extension is of another version of mvae_fast: it {fault}"
    assert expected in cpp
    assert "remedy: run `pip install .` again" in cpp
    assert cuda != "None" and shape == "torch.Size([3, 2])"
