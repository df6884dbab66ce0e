"""The code in README.md and docs/ runs as it stands, block by block."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


def blocks(path):
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), flags=re.DOTALL | re.MULTILINE)


BLOCKS = [
    pytest.param(block, id=f"{path.relative_to(ROOT)}-{number}")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for number, block in enumerate(blocks(path))
]


def execute(block):
    torch.manual_seed(0)
    names = {}
    exec(compile(block, "documentation", "exec"), names)
    return names


@pytest.fixture(autouse=True)
def _scratch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # an example may write a file


def test_readme_has_its_two_examples():
    assert len(blocks(ROOT / "README.md")) == 2


@pytest.mark.parametrize("block", BLOCKS)
def test_block_runs(block):
    tensors = {n: x for n, x in execute(block).items() if isinstance(x, torch.Tensor)}
    assert tensors, "the example should compute something"
    for name, value in tensors.items():
        assert value.isfinite().all(), name


def test_flow_example_inverts():
    names = execute(blocks(ROOT / "README.md")[0])
    # Euler's reverse steps undo its forward steps up to O(step size).
    error = (names["back"] - names["z_0"]).norm() / (names["z_T"] - names["z_0"]).norm()
    assert error < 0.1
    assert all(p.grad is not None for p in names["net"].parameters())
