"""What an import loads beside torch. No clock: on a loaded machine it would say little."""

from __future__ import annotations

import subprocess
import sys

import pytest

import mvae_fast

SOLVE = """
import torch
from mvae_fast import FastCNF, ODEfunc, ODEnet
flow = FastCNF(ODEfunc(ODEnet((4,), (2,))), n_steps=2, trace="exact")
flow.log_prob(torch.zeros(3, 2)).sum().backward()
"""


def loaded(code):
    """The modules that are there after some code."""
    ask = f"{code}\nimport sys; print(*sorted(sys.modules), sep='\\n')"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.fixture(scope="module")
def of_torch():
    return loaded("import torch, numpy")


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        "import mvae_fast",
        "from mvae_fast import *",
        "import mvae_fast.distributions, mvae_fast.flows",
        SOLVE,
    ],
    ids=["package", "names", "flows", "solve"],
)
def test_no_package_is_loaded_beside_torch(code, of_torch):
    more = {name for name in loaded(code) - of_torch if name.partition(".")[0] != "mvae_fast"}
    packages = {name.partition(".")[0] for name in more} - set(sys.stdlib_module_names)
    assert packages <= {"torch"}, packages
    compiler = ("torch._dynamo", "torch._inductor", "torch.fx.experimental", "torch.onnx")
    assert not [name for name in more if name.startswith(compiler)]


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--help", "--version"])
def test_the_command_answers_without_torch(option):
    modules = loaded(
        f"from mvae_fast.cli import main\ntry: main(['{option}'])\nexcept SystemExit: pass"
    )
    assert "mvae_fast.cli" in modules
    assert modules.isdisjoint({"torch", "numpy", "yaml", "mvae_fast.cnf"})


def test_names_are_those_of_their_modules():
    assert mvae_fast.FastCNF.__module__ == "mvae_fast.cnf"
    assert set(mvae_fast.__all__) <= set(dir(mvae_fast))
    assert all(hasattr(mvae_fast, name) for name in mvae_fast.__all__)
    with pytest.raises(AttributeError, match="module 'mvae_fast' has no attribute 'FastCnf'"):
        mvae_fast.FastCnf  # noqa: B018
    with pytest.raises(ImportError):
        from mvae_fast import FastCnf  # noqa: F401
