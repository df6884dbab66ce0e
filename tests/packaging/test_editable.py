"""An editable install is a plain path, so that type checkers and editors find the package."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv

import pytest

# Right, but for the last three.
USER = """
from torch import Tensor
from mvae_fast import FastCNF, ODEfunc, ODEnet
from mvae_fast.kernels.layout import padded

def width(sizes: tuple[int, ...]) -> tuple[int, ...]:
    return padded(sizes)

def sample(flow: FastCNF, z: Tensor) -> Tensor:
    return flow(z)

def density(flow: FastCNF, z: Tensor, logp: Tensor) -> tuple[Tensor, Tensor]:
    return flow(z, logp)

FastCNF(ODEfunc(ODEnet((4,), (2,))), T=1.0)
FastCNF(ODEfunc(ODEnet((4,), (2,))), T="one")
FastCNF(ODEfunc(ODEnet((4,), (2,))), T=1.0, n_step=3)

def moved(flow: FastCNF, z: Tensor, logp: Tensor) -> Tensor:
    return flow(z, logp)
"""
EXPECTED = (
    'Argument "T" to "FastCNF" has incompatible type "str"',
    'Unexpected keyword argument "n_step" for "FastCNF"',
    'Incompatible return value type (got "tuple[Tensor, Tensor]", expected "Tensor")',
)
# To check torch itself takes mypy a minute: of it these stubs alone are followed.
TORCH = {
    "__init__.pyi": "from typing import Any\nfrom torch import nn as nn\nclass Tensor: ...\n"
    "class Generator: ...\ndef __getattr__(name: str) -> Any: ...\n",
    "nn.pyi": "from typing import Any, Callable\nclass Module:\n    __call__: Callable[..., Any]\n",
}
CONFIG = "[mypy]\n[mypy-torch.*,mypy-numpy.*,mypy-triton.*]\nfollow_imports = skip\n"


def test_mypy_sees_it(source_tree, python, tmp_path):
    pytest.importorskip("mypy")
    venv.create(tmp_path / "venv", symlinks=True)
    here = sysconfig.get_path("purelib")
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (site / "tools.pth").write_text(here)  # torch, pip and setuptools, as they are here
    interpreter = str(tmp_path / "venv" / "bin" / "python")
    install = "-m pip install -q --no-build-isolation --no-deps --ignore-installed -e"
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run(
        [interpreter, *install.split(), "."],
        cwd=source_tree,
        env=environ | {"MVAE_FAST_SKIP_EXT": "1"},
        check=True,
    )
    (path,) = site.glob("__editable__*.pth")
    assert path.read_text().strip() == str(source_tree)

    (tmp_path / "torch").mkdir()
    for name, text in TORCH.items():
        (tmp_path / "torch" / name).write_text(text)
    (tmp_path / "mypy.ini").write_text(CONFIG)
    (tmp_path / "user.py").write_text(USER)
    check = [sys.executable, "-m", "mypy", "--strict", "--config-file", "mypy.ini"]
    check += ["--cache-dir", ".cache", "--python-executable", interpreter, "user.py"]
    done = subprocess.run(check, cwd=tmp_path, env=environ, capture_output=True, text=True)
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    for error, expected in zip(errors, EXPECTED, strict=True):
        assert expected in error
