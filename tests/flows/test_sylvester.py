import pytest
import torch

from mvae_fast.flows import SylvesterFlow
from mvae_fast.flows.orthogonal import orthonormal
from tests.flows.kinds import inputs


def test_it_is_the_papers_equation():
    flow = SylvesterFlow(5, 1, variant="orthogonal", n_ortho=3).double()
    z, _, _ = inputs(5)
    p = {name: x[0] for name, x in flow.flows[0](None).items()}
    q = orthonormal(p["q"])
    r_1 = p["triangles"].triu(1) + torch.diag(p["diagonal_1"].tanh())
    r_2 = p["triangles"].T.triu(1) + torch.diag(p["diagonal_2"].tanh())
    expected = torch.stack([x + q @ r_1 @ torch.tanh(r_2 @ q.T @ x + p["b"]) for x in z])
    torch.testing.assert_close(flow(z), expected)


def test_widths():
    assert SylvesterFlow(17).width == 8
    assert SylvesterFlow(3).width == 3
    assert SylvesterFlow(17, n_ortho=16).width == 16
    assert SylvesterFlow(17, variant="triangular").width == 17


def test_triangular_flows_reverse_the_order_in_turn():
    flow = SylvesterFlow(4, 2, variant="triangular").double()
    z = torch.randn(4, dtype=torch.float64)
    # Each flow alone has a triangular Jacobian; the second one after two flips a lower one.
    second = SylvesterFlow(4, 2, variant="triangular").double()
    with torch.no_grad():
        second.flows[0].free.zero_()
    one = torch.autograd.functional.jacobian(lambda x: second(x[None])[0], z)
    assert not one.triu(1).any() and one.tril(-1).all(dim=None).logical_not()
    assert (one.tril(-1) != 0).sum() == 6
    both = torch.autograd.functional.jacobian(lambda x: flow(x[None])[0], z)
    assert (both != 0).all()


@pytest.mark.parametrize("variant", ["orthogonal", "householder", "triangular"])
def test_the_constraint_holds_at_saturated_diagonals(variant):
    # diag(R) diag(R~) = -1 would make the determinant tanh^2: zero where the unit is zero.
    flow = SylvesterFlow(3, 1, variant=variant).double()
    theta = flow.flows[0]
    for name, value in {"diagonal_1": 1e6, "diagonal_2": -1e6, "b": 0.0, "triangles": 0.0}.items():
        at = list(theta.shapes).index(name)
        start = sum(theta.sizes[:at])
        with torch.no_grad():
            theta.free[start : start + theta.sizes[at]] = value
    z = torch.zeros(2, 3, dtype=torch.float64)
    _, logp = flow(z, z[:, :1])
    assert logp.isfinite().all() and (logp > 50).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variant": "diagonal"}, "variant: got 'diagonal', expected one of 'orthogonal', 'hous"),
        ({"n_ortho": 4}, "n_ortho: got 4, expected at most dim = 3"),
        ({"n_ortho": 0}, "n_ortho: got 0, expected an integer >= 1"),
        ({"n_ortho": 2, "variant": "triangular"}, "n_ortho: given, but variant='triangular'"),
        ({"n_householder": 0}, "n_householder: got 0, expected an integer >= 1"),
        ({"n_flows": 0}, "n_flows: got 0, expected an integer >= 1"),
    ],
)
def test_what_does_not_fit_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        SylvesterFlow(3, **settings)
