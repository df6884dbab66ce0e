"""What the sdist and the wheel hold and say."""

from __future__ import annotations

import email
import os
import tarfile
import zipfile

import pytest
import yaml

import mvae_fast
from build_backend.build_ext import without_directories
from build_backend.compile import find_compiler
from build_backend.target_torch import MINIMUM, ROOT

PIP_WHEEL = ("-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "-w", "wheels")
NO_COMPILER = {"PATH": "", "CXX": ""}
SDIST = "from build_backend.backend import build_sdist; build_sdist('dist')"


def build_wheel(python, tree, **environ):
    python(*PIP_WHEEL, ".", cwd=tree, **environ)
    (wheel,) = (tree / "wheels").iterdir()
    return wheel


def test_wheel_of_the_sdist(source_tree, python):
    """The sdist is complete: a wheel can be built of it alone; the wheel holds the package only."""
    python("-c", SDIST, cwd=source_tree, **NO_COMPILER)
    (sdist,) = (source_tree / "dist").iterdir()
    root = f"mvae_fast-{mvae_fast.__version__}"
    assert sdist.name == f"{root}.tar.gz"
    with tarfile.open(sdist) as archive:
        safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # not in 3.11.3
        archive.extractall(source_tree / "unpacked", **safely)
    unpacked = source_tree / "unpacked" / root
    for folder in (".ci", "build_backend", "csrc", "hub", "kernels", "mvae_fast", "tests"):
        files = [path for path in (source_tree / folder).rglob("*") if path.is_file()]
        names = [path.relative_to(source_tree) for path in files if path.suffix != ".pyc"]
        assert names
        assert not [name for name in names if not (unpacked / name).is_file()]
    # What the build reads; what `make lint` reads; what a user does.
    for name in (
        *("constraints.txt", "Makefile", ".clang-format", ".gitignore", "CITATION.cff"),
        "mkdocs.yml",
    ):
        assert (unpacked / name).exists(), name
    assert os.access(unpacked / ".ci" / "run", os.X_OK)

    # pip shows no more of a build than the version that it made: it has to say what is missing.
    wheel = build_wheel(python, unpacked, **NO_COMPILER)
    root += "+no.compiler"
    assert wheel.name.startswith(f"{root}-cp310-abi3-")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        reason = archive.read("mvae_fast/_build_error.txt").decode()
        metadata = email.message_from_bytes(archive.read(f"{root}.dist-info/METADATA"))
        scripts = archive.read(f"{root}.dist-info/entry_points.txt").decode()
    assert "no C++ compiler was found" in reason
    assert {name.split("/")[0] for name in names} == {"mvae_fast", f"{root}.dist-info"}
    assert {"mvae_fast/py.typed", "mvae_fast/kernels/__init__.py"} <= names
    sources = (source_tree / "mvae_fast").rglob("*")
    shipped = [path for path in sources if path.suffix in (".py", ".yaml", ".typed")]
    assert {path.relative_to(source_tree).as_posix() for path in shipped} <= names
    assert not [name for name in names if name.endswith((".cpp", ".h", ".so", ".pyc"))]

    assert metadata["Version"] == f"{mvae_fast.__version__}+no.compiler"
    required = [r.replace(" ", "") for r in metadata.get_all("Requires-Dist") if "extra" not in r]
    oldest = "torch>={}.{}".format(*MINIMUM)  # never a pin, which would replace the user's torch
    assert set(required) == {oldest, "torchdiffeq>=0.2.4", "numpy", "safetensors>=0.4.3"}
    assert set(metadata.get_all("Provides-Extra")) == {
        *("train", "images", "tables", "masks", "hub", "test", "bench", "peers", "docs", "dev")
    }
    assert "mvae-fast = mvae_fast.cli:main" in scripts


def test_a_wheel_says_nothing_of_the_directories_of_its_machine():
    said = (
        f"FAILED: {ROOT}/build/objects/a.o \n/usr/bin/c++ -I {ROOT}/csrc -isystem "
        f"/home/me/.venv/lib/torch/include -o {ROOT}/build/objects/a.o\n"
        f"{ROOT}/csrc/cpu/simd/peak.h:17:62: error: 'x/y' /= '/opt/cuda/bin/nvcc'"
    )
    assert without_directories(said) == (
        "FAILED: build/objects/a.o \nc++ -I csrc -isystem include -o build/objects/a.o\n"
        "csrc/cpu/simd/peak.h:17:62: error: 'x/y' /= 'nvcc'"
    )


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == mvae_fast.__version__
    assert citation["license"] == "MIT"
    (paper,) = citation["references"]
    named = f"*{paper['title']}* ({paper['year']})"
    assert named in " ".join((ROOT / "README.md").read_text().split())


@pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler")
def test_wheel_with_the_extension(dummy_tree, python):
    """One binary for all Pythons; a module deleted since the last build is not shipped."""
    gone = dummy_tree / "mvae_fast" / "gone.py"
    gone.touch()
    first = build_wheel(python, dummy_tree)
    gone.unlink()
    first.unlink()
    with zipfile.ZipFile(build_wheel(python, dummy_tree)) as archive:
        names = archive.namelist()
    assert "mvae_fast/_C.abi3.so" in names
    assert "mvae_fast/_build_error.txt" not in names
    assert "mvae_fast/gone.py" not in names


def test_a_plug_in_of_the_name_of_our_folder(dummy_tree, python, tmp_path):
    """The Hub's package `kernels` has one for setuptools, which kernels/ must not hide."""
    plug_in = tmp_path / "site" / "kernels"
    plug_in.mkdir(parents=True)
    (plug_in / "__init__.py").touch()
    (plug_in / "locking.py").write_text("def write(command, name, path): open(path, 'w').close()\n")
    about = tmp_path / "site" / "kernels-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: kernels\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[egg_info.writers]\nlock = kernels.locking:write\n")
    site = {"PYTHONPATH": str(tmp_path / "site"), "MVAE_FAST_SKIP_EXT": "1"}
    with zipfile.ZipFile(build_wheel(python, dummy_tree, **site)) as archive:
        assert [name for name in archive.namelist() if name.endswith(".dist-info/lock")]


def test_a_compiler_on_this_machine_means_a_compiled_engine():
    """The install goes on without the extension, so a broken build must be caught here."""
    if find_compiler() is None:
        pytest.skip("no C++ compiler")
    from mvae_fast import engines

    assert engines.why_missing("cpp") is None
