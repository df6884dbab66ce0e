"""What all ops for tables share: how a method becomes their arguments."""

from types import SimpleNamespace

import pytest
import torch

from mvae_fast.core.problem import PRECISIONS, Method
from mvae_fast.core.tableaus import TABLEAUS
from mvae_fast.engines.table_ops import method_arguments

CPU = SimpleNamespace(is_cuda=False, dtype=torch.float32)
GPU = SimpleNamespace(is_cuda=True, dtype=torch.float32)
GPU64 = SimpleNamespace(is_cuda=True, dtype=torch.float64)


@pytest.fixture
def matmul_precision():
    before = torch.get_float32_matmul_precision()
    yield torch.set_float32_matmul_precision
    torch.set_float32_matmul_precision(before)


def operands(z, precision="full"):
    return method_arguments(Method((4,), precision=precision), z)[-1]


def test_method():
    method = Method((2, 4), TABLEAUS["midpoint"], 3, ("root_mean_square", "frobenius"), "bf16")
    tableau = TABLEAUS["midpoint"]
    assert method_arguments(method, CPU) == (tableau.a, tableau.b, (2, 4), 3, 2 + 8, 1)


def test_numbers_of_precisions():
    assert [operands(CPU, name) for name in PRECISIONS] == [0, 1, 2]


def test_products_on_a_gpu_follow_pytorchs_switch(matmul_precision):
    matmul_precision("highest")
    assert operands(GPU) == 0
    matmul_precision("high")
    assert operands(GPU) == 3  # TF32
    assert operands(GPU, "bf16") == 1
    assert operands(CPU) == operands(GPU64) == 0
