import pytest
import torch

from mvae_fast.flows.orthogonal import orthonormal, reflect


@pytest.mark.parametrize("shape", [(1, 1), (5, 1), (5, 3), (17, 17)])
def test_columns_are_orthonormal_to_rounding(shape):
    q = orthonormal(torch.randn(4, *shape, dtype=torch.float64))
    identity = torch.eye(shape[1], dtype=torch.float64).expand(4, shape[1], shape[1])
    torch.testing.assert_close(q.mT @ q, identity, rtol=0, atol=1e-14 * shape[0])


def test_q_is_continuous_where_an_entry_passes_zero():
    a = torch.randn(5, 3, dtype=torch.float64)
    near = []
    for first in (-1e-9, 1e-9):
        a[0, 0] = first
        near.append(orthonormal(a))
    torch.testing.assert_close(*near, rtol=0, atol=1e-7)


def test_the_span_of_leading_columns_is_kept():
    a = torch.randn(6, 3, dtype=torch.float64)
    q = orthonormal(a)
    torch.testing.assert_close(q @ (q.mT @ a), a)
    assert ((q * a).sum(0) > 0).all()


def test_reflections_keep_lengths_and_the_reversed_list_undoes_them():
    x = torch.randn(4, 5, dtype=torch.float64)
    normals = [torch.randn(4, 5, dtype=torch.float64), torch.randn(1, 5, dtype=torch.float64)]
    y = reflect(x, normals)
    torch.testing.assert_close(y.norm(dim=1), x.norm(dim=1))
    torch.testing.assert_close(reflect(y, normals[::-1]), x)
    # Two reflections make a rotation.
    whole = reflect(torch.eye(5, dtype=torch.float64), [n[:1] for n in normals])
    torch.testing.assert_close(torch.linalg.det(whole), torch.tensor(1.0).double())


def test_a_zero_normal_reflects_nothing():
    x = torch.randn(2, 3)
    assert torch.equal(reflect(x, [torch.zeros(1, 3)]), x)
