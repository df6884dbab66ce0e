import pytest
import torch

from mvae_fast.flows import IAF
from mvae_fast.flows.iaf import MADE


@pytest.mark.parametrize("dim", [1, 2, 5])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("hidden", [(9,), (7, 11), (2, 3)])
def test_outputs_see_what_comes_before_them_and_nothing_else(dim, backwards, hidden):
    made = MADE(dim, hidden, 2, backwards=backwards).double()
    with torch.no_grad():
        for layer in made.layers:
            layer.weight.abs_()
        made.output.weight.abs_()  # no path cancels another
    z = torch.rand(dim, dtype=torch.float64)
    jacobians = torch.autograd.functional.jacobian(lambda x: made(x[None], None), z)
    allowed = torch.ones(dim, dim, dtype=torch.bool).tril(-1)
    allowed = allowed.T if backwards else allowed
    for jacobian in jacobians:
        seen = jacobian[0] != 0
        assert not (seen & ~allowed).any()
        if min(hidden) >= dim:
            assert torch.equal(seen, allowed)


def test_the_first_output_sees_the_condition_too():
    made = MADE(3, (9,), 2, cond_dim=2).double()
    cond = torch.randn(1, 2, dtype=torch.float64)
    z = torch.zeros(1, 3, dtype=torch.float64)
    for jacobian in torch.autograd.functional.jacobian(lambda c: made(z, c), cond):
        assert (jacobian != 0).all()


def test_the_order_alternates():
    flow = IAF(3, 3, hidden=(8,))
    assert [made.order for made in flow.flows] == [[0, 1, 2], [2, 1, 0], [0, 1, 2]]


def test_one_dimension_is_an_affine_map():
    flow = IAF(1, 2, hidden=(8,)).double()
    z = torch.tensor([[-1.0], [0.0], [1.0], [5.0]], dtype=torch.float64)
    z_out, logp = flow(z, torch.zeros_like(z))
    slopes = z_out.diff(dim=0) / z.diff(dim=0)
    torch.testing.assert_close(slopes, slopes[:1].expand(3, 1))
    torch.testing.assert_close(logp, -slopes[:1].log().expand(4, 1))


def test_masks_are_not_in_the_state_dict_and_follow_the_module():
    flow = IAF(3, 1, hidden=(8,))
    assert not any("mask" in name for name in flow.state_dict())
    assert all(b.dtype == torch.float64 for b in flow.double().buffers())
    assert len(list(flow.buffers())) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": ()}, r"hidden: got \(\), expected at least one width"),
        ({"hidden": (4, 0)}, "hidden: got 0, expected an integer >= 1"),
        ({"n_flows": 0}, "n_flows: got 0, expected an integer >= 1"),
    ],
)
def test_what_does_not_fit_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        IAF(3, **settings)
