"""What a user's type checker sees: all of the public surface under `mypy --strict`, of an editable
install, which is a plain path that checkers and editors find, and of a wheel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import venv

import pytest

HEAD = """
import torch
from torch import Tensor, nn
from mvae_fast import FastCNF, ODEfunc, ODEnet, __version__, likelihood
from mvae_fast.density import FlowTransform
from mvae_fast.distributions import FlowPosterior
from mvae_fast.kernels.layout import padded
from mvae_fast.ode.settings import Settings, Solver

def use(module: nn.Module, t: Tensor, z: Tensor, logp: Tensor, solver: Solver) -> None:
    net = ODEnet((4,), (2,), layer_type="squash", nonlinearity="tanh")
    odefunc = ODEfunc(net, "brute_force")
    flow = FastCNF(odefunc, solver=solver, trace="exact", engine="cpp", memory=2**20)
    known = FastCNF(odefunc, 1.0, regularization_fns=("l1int",), precision="bf16", memory="states")
"""
REVEALED = {
    "flow(z)": "Tensor",
    "flow(z, logp)": "tuple[Tensor, Tensor]",
    "flow(z, logpz=logp, reverse=True)": "tuple[Tensor, Tensor]",
    "flow(z, None, (0.0, 0.5))": "Tensor",
    "flow.forward(z, logp, context=z)": "tuple[Tensor, Tensor]",
    "flow.log_prob(z, trace='hutchinson')": "Tensor",
    "flow.sample(3)": "Tensor",
    "flow.distribution().rsample_and_log_prob((3,))": "tuple[Tensor, Tensor]",
    "flow.distribution().log_prob(z)": "Tensor",
    "FlowTransform(flow).call_and_ladj(z)": "tuple[Tensor, Tensor]",
    "flow.fused": "bool",
    "flow.n_steps": "int",
    "flow.atol": "float",
    "flow.trace": "Literal['exact'] | Literal['hutchinson'] | None",
    "flow.num_evals()": "int",
    "known.get_regularization_states()": "tuple[Tensor, ...] | None",
    "FastCNF.from_module(module, call='f(x, t)', time='first')": "mvae_fast.cnf.FastCNF",
    "likelihood(module, z, call='f(cat)')": "Tensor",
    "net(t, z)": "Tensor",
    "odefunc(t, (z, logp))": "tuple[Tensor, ...]",
    "odefunc.divergence_fn": "Literal['approximate'] | Literal['brute_force']",
    "Settings(solver='rk4').present(True).steps": "int",
    "padded((3, 4))": "tuple[int, ...]",
    "__version__": "str",
}
REFUSED = {
    "FastCNF(odefunc, T='one')": 'Argument "T"',
    "FastCNF(odefunc, n_step=3)": 'Unexpected keyword argument "n_step"',
    "FastCNF(odefunc, solver='rk5')": 'Argument "solver"',
    "FastCNF(odefunc, trace='none')": 'Argument "trace"',
    "FastCNF(odefunc, engine='gpu')": 'Argument "engine"',
    "FastCNF(odefunc, log_det='2')": 'Argument "log_det"',
    "FastCNF(odefunc, precision='half')": 'Argument "precision"',
    "FastCNF(odefunc, memory='all')": 'Argument "memory"',
    "FastCNF.from_module(module, call='f(y)')": 'Argument "call"',
    "ODEnet((4,), (2,), layer_type='squish')": 'Argument "layer_type"',
    "ODEnet((4,), (2,), nonlinearity='sine')": 'Argument "nonlinearity"',
    "likelihood(module, z, time_shape='row')": 'Argument "time_shape"',
    "wrong: Tensor = flow(z, logp)": 'has type "tuple[Tensor, Tensor]", variable',
}
# To check torch itself takes mypy a minute: of it these stubs alone are followed.
TORCH = {
    "__init__.pyi": "from typing import Any\nfrom torch import nn as nn\nclass Tensor: ...\n"
    "class Generator: ...\ndef __getattr__(name: str) -> Any: ...\n",
    "nn.pyi": "from typing import Any, Callable\nclass Module:\n    __call__: Callable[..., Any]\n",
}
CONFIG = "[mypy]\n[mypy-torch.*,mypy-numpy.*,mypy-triton.*]\nfollow_imports = skip\n"
INSTALL = ("-m", "pip", "install", "-q", "--no-build-isolation", "--no-deps", "--ignore-installed")


@pytest.fixture(params=["editable", "wheel"])
def interpreter(request, source_tree, tmp_path):
    """One with the package installed, and of the other packages what is here."""
    venv.create(tmp_path / "venv", symlinks=True)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (site / "tools.pth").write_text(sysconfig.get_path("purelib"))
    python = str(tmp_path / "venv" / "bin" / "python")
    what = ("-e", ".") if request.param == "editable" else (".",)
    subprocess.run([python, *INSTALL, *what], cwd=source_tree, env=environ(), check=True)
    if request.param == "editable":
        (path,) = site.glob("__editable__*.pth")
        assert path.read_text().strip() == str(source_tree)
    else:
        assert (site / "mvae_fast" / "py.typed").is_file()
    return python


def environ():
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return clean | {"MVAE_FAST_SKIP_EXT": "1"}


def test_mypy_sees_the_public_surface(interpreter, tmp_path):
    pytest.importorskip("mypy", reason="mypy is in the extra [dev]")
    (tmp_path / "torch").mkdir()
    for name, text in TORCH.items():
        (tmp_path / "torch" / name).write_text(text)
    (tmp_path / "mypy.ini").write_text(CONFIG)
    lines = [*(f"reveal_type({code})" for code in REVEALED), *REFUSED]
    (tmp_path / "user.py").write_text(HEAD + "".join(f"    {line}\n" for line in lines))
    check = [sys.executable, "-m", "mypy", "--strict", "--config-file", "mypy.ini"]
    check += ["--no-pretty", "--cache-dir", ".cache", "--python-executable", interpreter, "user.py"]
    done = subprocess.run(check, cwd=tmp_path, env=environ(), capture_output=True, text=True)
    revealed = re.findall(r'note: Revealed type is "(.*)"', done.stdout)
    assert [re.sub(r"\b(torch|builtins)\.", "", kind) for kind in revealed] == list(
        REVEALED.values()
    ), done.stdout
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    for error, expected in zip(errors, REFUSED.values(), strict=True):
        assert expected in error
