"""The README's code runs as it stands, block by block."""

import re
from pathlib import Path

import pytest
import torch

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text(), flags=re.DOTALL | re.MULTILINE)


def test_has_the_two_examples():
    assert len(BLOCKS) == 2


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block_runs(number):
    torch.manual_seed(0)
    names = {}
    exec(compile(BLOCKS[number], f"README.md, python block {number}", "exec"), names)
    tensors = {name: value for name, value in names.items() if isinstance(value, torch.Tensor)}
    assert tensors, "the example should compute something"
    for name, value in tensors.items():
        assert value.isfinite().all(), name


def test_flow_example_inverts():
    names = {}
    torch.manual_seed(0)
    exec(BLOCKS[0], names)
    # Euler's reverse steps undo its forward steps up to O(step size).
    error = (names["back"] - names["z_0"]).norm() / (names["z_T"] - names["z_0"]).norm()
    assert error < 0.1
    assert all(p.grad is not None for p in names["net"].parameters())
