"""The code in README.md and docs/ runs as it stands, block by block; that of tutorials page by
page."""

import sys
import time
import types

import pytest
import torch
from torch import Tensor

from tests.docs.pages import FIGURES, PAGES, ROOT, TUTORIALS, blocks, execute, pictures

BLOCKS = [
    pytest.param(block, id=f"{path.relative_to(ROOT)}-{number}")
    for path in PAGES
    for number, block in enumerate(blocks(path))
]
README = blocks(ROOT / "README.md")


@pytest.fixture(autouse=True)
def _scratch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # an example may write a file
    # FFJORD's own package, which its users have: `lib.layers`.
    package, layers = types.ModuleType("lib"), types.ModuleType("lib.layers")
    package.layers = layers
    monkeypatch.setitem(sys.modules, "lib", package)
    monkeypatch.setitem(sys.modules, "lib.layers", layers)


@pytest.mark.parametrize("block", BLOCKS)
def test_block_runs(block):
    names = execute(block)
    if "lib.layers" in block:
        assert names["layers"].CNF is names["FastCNF"]
        return
    tensors = {n: x for n, x in names.items() if isinstance(x, Tensor)}
    assert tensors, "the example should compute something"
    for name, value in tensors.items():
        assert value.isfinite().all(), name


def test_readme_learns_a_density():
    began = time.process_time()
    names = execute(README[0])
    assert time.process_time() - began < 20
    # Eight Gaussians that hardly overlap: log 8 + log(2 pi 0.3^2) + 1 = 2.51 nats, give or take the
    # noise of a batch of 256; N(0, I) has log(2 pi) + (2^2 + 2 * 0.3^2) / 2 = 3.93.
    assert abs(names["loss"].item() - 2.51) < 0.3
    assert (names["flow"].sample(500).norm(dim=1) - 2).abs().mean() < 0.4


def test_flow_example_inverts():
    (block,) = (b for b in blocks(ROOT / "docs" / "index.md") if "back = " in b)
    names = execute(block)
    # Euler's reverse steps undo its forward steps up to O(step size).
    error = (names["back"] - names["z_0"]).norm() / (names["z_T"] - names["z_0"]).norm()
    assert error < 0.1
    assert all(p.grad is not None for p in names["net"].parameters())


#: What the text of a tutorial says of its numbers.
CLAIMS = {
    "density": lambda n: (
        abs(n["total"] - 1) < 0.01 and abs(n["nats"] - 1.92) < 0.1 and n["errors"]["rk4"][2] < 1e-3
    ),
    "posterior": lambda n: 0.2 < n["elbo"]["flow"] - n["elbo"]["Gaussian"] < 0.8,
    "modalities": lambda n: n["right"] > 0.9 and n["missing_sizes"].isfinite().all(),
    "flow_matching": lambda n: 0.04 < n["kl"] < 0.14 and n["difference"] < 1e-3,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TUTORIALS)
def test_tutorial(name, tmp_path):
    for library in ("matplotlib", "PIL", "sklearn"):
        pytest.importorskip(library)
    path = TUTORIALS[name]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    began = time.process_time()
    try:
        names = execute(*blocks(path))
    finally:
        torch.set_num_threads(threads)
    assert time.process_time() - began < 60
    assert CLAIMS[name](names)
    assert pictures(path)
    for picture in pictures(path):
        assert (tmp_path / picture).stat().st_size > 0
        assert (FIGURES / picture).exists()
