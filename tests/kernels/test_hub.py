"""The Triton engine as a kernel of the Hugging Face Hub: complete, and on its own."""

import ast
import base64
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys

import pytest
import torch

from hub.write import NAME, ROOT, write
from mvae_fast.core.tableaus import TABLEAUS
from mvae_fast.engines import triton as triton_ops
from mvae_fast.engines.enums import FIRST_NONLINEARITIES, OPERANDS
from tests.contract import Case, assert_near, leaves_of, oracle
from tests.interpreter import hasten
from tests.oracles import gradients

pytest.importorskip("triton", reason="triton is not installed")


@pytest.fixture(scope="module")
def variant(tmp_path_factory):
    return write(tmp_path_factory.mktemp("hub"))


@pytest.fixture(scope="module")
def kernel(variant):
    """As the `kernels` package imports it: by path, under the name in its metadata."""
    name = json.loads((variant / "metadata.json").read_text())["id"]
    spec = importlib.util.spec_from_file_location(name, variant / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    hasten()
    yield module
    for loaded in [n for n in sys.modules if n == name or n.startswith(f"{name}.")]:
        del sys.modules[loaded]


def test_the_layout(variant):
    assert variant.parts[-2:] == ("build", "torch-cuda")
    assert (variant.parents[1] / "README.md").read_text().startswith("---\n")
    metadata = json.loads((variant / "metadata.json").read_text())
    assert (metadata["name"], metadata["license"]) == (NAME, "mit")
    assert metadata["id"].isidentifier()
    assert metadata["backend"] == {"type": "cuda"}
    digests = metadata["digest"]["files"]
    files = {path.relative_to(variant).as_posix(): path for path in variant.rglob("*.*")}
    assert set(digests) == set(files) - {"metadata.json"}
    for name, digest in digests.items():
        assert base64.b64decode(digest) == hashlib.sha256(files[name].read_bytes()).digest()
    # What the repository has, and nothing that is made of it.
    ours = {path.relative_to(ROOT / "kernels").as_posix() for path in ROOT.glob("kernels/**/*.py")}
    assert ours <= set(digests)


def test_it_imports_torch_triton_and_itself(variant):
    known = sys.stdlib_module_names | {"torch", "triton"}
    for path in variant.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            assert {name.split(".")[0] for name in names} <= known, (path, names)


def test_its_numbers_are_the_engines(kernel):
    assert kernel.NONLINEARITIES == FIRST_NONLINEARITIES
    assert list(kernel.PRECISIONS) == sorted(OPERANDS, key=OPERANDS.get)
    assert kernel.SOLVERS == tuple(TABLEAUS)


CASES = {
    "gated": Case((5, 3, (7,)), "tables 1EE", "softplus", "exact"),
    "rk4": Case((5, 3, (7,)), "tables 101", "tanh", "exact", solver="rk4", steps=2),
    "two hidden layers": Case((3, 2, (5, 4)), "tables EEE", "tanh", "exact", residual=True),
    "three hidden layers": Case((3, 2, (5, 4, 3)), "tables 101", "tanh", "exact"),
    "Hutchinson": Case((5, 3, (7,)), "tables E0E", "silu", "hutchinson"),
    "no trace": Case((5, 3, (7,)), "tables 111", "tanh"),
}


@pytest.mark.skipif(not triton_ops.INTERPRETED, reason="TRITON_INTERPRET is not set")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_values_and_gradients(kernel, case):
    problem = case.problem()
    ours = problem.field
    leaves = {name: x.detach().clone().requires_grad_() for name, x in leaves_of(problem).items()}
    tables = kernel.Tables(
        leaves["weight"], leaves.get("gate"), leaves["bias"], ours.widths, ours.nonlinearity,
        ours.residual,
    )  # fmt: skip
    exact = case.trace == "exact"
    z, change = kernel.integrate(
        leaves["z"], leaves["h"], tables, exact=exact, probes=problem.probes, solver=case.solver
    )
    # In the shape that the engines have: of one output, and without penalties.
    results = (z[None], change[None], z.new_zeros(1, 0, len(z)))
    grads = gradients(results, list(leaves.values()))
    got = dict(zip(("z", "logp", "penalties"), results, strict=True))
    got |= {f"d {name}": grad for name, grad in zip(leaves, grads, strict=True)}
    assert_near(got, oracle(case))


def test_arguments_are_refused_by_name(kernel):
    z, h, weight = torch.zeros(3, 2), torch.ones(4), torch.zeros(1, 2 * 5 * 2)
    kind = ((2, 5, 2), "tanh")
    net = kernel.Tables(weight, None, torch.zeros(1, 7), *kind)
    wrong = {
        "solver: got 'rk5'": {"solver": "rk5"},
        "precision: got 'half'": {"precision": "half"},
        r"z: got torch.float32 \(3,\)": {"z": torch.zeros(3)},
        "precision: got 'bf16', expected 'full'": {"z": z.double(), "precision": "bf16"},
        r"h: got \(\)": {"h": torch.tensor(1.0)},
        "h: got torch.float64": {"h": h.double()},
        "tables.widths": {"z": torch.zeros(3, 4)},
        r"probes: got \(1, 3, 2\) and exact=True": {"probes": torch.zeros(1, 3, 2)},
        "tables.weight: got": {"tables": kernel.Tables(weight[:, 1:], None, net.bias, *kind)},
        "tables.nonlinearity: got 'sin'": {
            "tables": kernel.Tables(weight, None, net.bias, net.widths, "sin")
        },
    }
    for message, changes in wrong.items():
        arguments = {"z": z, "h": h, "tables": net, **changes}
        with pytest.raises(ValueError, match=message):
            kernel.integrate(**arguments)


@pytest.mark.parametrize("where", ["build/torch-cuda", "build/torch-cuda/fast_cnf"])
def test_it_needs_no_mvae_fast(variant, where):
    """Also by the package for older loaders."""
    code = f"""
import importlib.util, sys
sys.modules["mvae_fast"] = None
path = {str(variant.parents[1] / where / "__init__.py")!r}
spec = importlib.util.spec_from_file_location("loaded", path)
sys.modules["loaded"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(sorted(module.__all__))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "'integrate'" in done.stdout, done.stderr


def test_the_kernels_package_loads_it(variant):
    """In a process of its own, and elsewhere: in a checkout its name is that of our folder."""
    if "kernels" not in {d.name for d in importlib.metadata.distributions()}:
        pytest.skip("kernels is not installed")
    code = f"""
from pathlib import Path
from kernels import get_local_kernel
module = get_local_kernel(Path({str(variant)!r}))
print(sorted(module.__all__))
"""
    where = {"cwd": variant, "env": {**os.environ, "PYTHONPATH": ""}}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, **where)
    assert "'integrate'" in done.stdout, done.stderr
