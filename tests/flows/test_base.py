"""What holds for every flow with an exact log-determinant, free or amortised."""

import copy

import pytest
import torch

from tests.flows.kinds import COND, DISCRETE, inputs, jacobians, log_det, make

modes = pytest.mark.parametrize("cond_dim", [0, COND], ids=["free", "amortised"])
kinds = pytest.mark.parametrize("kind", DISCRETE)


@modes
@kinds
@pytest.mark.parametrize(
    "dim", [1, 3, *(pytest.param(dim, marks=pytest.mark.slow) for dim in (2, 17))]
)
@pytest.mark.slow
def test_log_density_is_that_of_the_map_and_reverse_undoes_it(kind, dim, cond_dim):
    flow = make(kind, dim, cond_dim)
    z, logp, cond = inputs(dim, cond_dim)
    z_out, logp_out = flow(z, logp, **cond)
    expected = logp - log_det(flow, z, cond).unsqueeze(1)
    torch.testing.assert_close(logp_out, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(flow(z, **cond), z_out, rtol=0, atol=0)
    flat = flow(z, logp[:, 0], **cond)[1]
    torch.testing.assert_close(flat, logp_out[:, 0], rtol=0, atol=0)

    back, logp_back = flow(z_out, logp_out, reverse=True, **cond)
    torch.testing.assert_close(back, z, rtol=0, atol=1e-10)
    torch.testing.assert_close(logp_back, logp, rtol=0, atol=1e-10)


@modes
@pytest.mark.parametrize(
    "kind",
    [kind if kind == "planar" else pytest.param(kind, marks=pytest.mark.slow) for kind in DISCRETE],
)
@pytest.mark.slow
def test_gradients(kind, cond_dim):
    flow = make(kind, 3, cond_dim, scale=1.0)
    z, logp, cond = inputs(3, cond_dim, rows=2)
    names, leaves = zip(*flow.named_parameters(), strict=True)
    tensors = [z, logp, *cond.values(), *leaves]
    tensors = [t.detach().clone().requires_grad_() for t in tensors]

    def call(reverse):
        def through(z, logp, *rest):
            given = {"cond": rest[0]} if cond_dim else {}
            parameters = dict(zip(names, rest[len(given) :], strict=True))
            return torch.func.functional_call(flow, parameters, (z, logp, reverse), given)

        return through

    assert torch.autograd.gradcheck(call(False), tensors, fast_mode=True)
    assert torch.autograd.gradcheck(call(True), tensors, fast_mode=True)
    assert torch.autograd.gradgradcheck(call(True), tensors, fast_mode=True)


@modes
@kinds
def test_an_empty_batch_stays_empty(kind, cond_dim):
    flow = make(kind, 3, cond_dim)
    z, logp, cond = inputs(3, cond_dim, rows=0)
    for reverse in (False, True):
        z_out, logp_out = flow(z.requires_grad_(), logp, reverse, **cond)
        assert z_out.shape == (0, 3) and logp_out.shape == (0, 1)
        (z_out.sum() + logp_out.sum()).backward()


@modes
@kinds
def test_strides_do_not_matter(kind, cond_dim):
    flow = make(kind, 3, cond_dim)
    z, logp, cond = inputs(3, cond_dim)
    strided = {name: torch.stack((x, x), 2)[..., 0] for name, x in cond.items()}
    got = flow(z.T.contiguous().T, torch.cat((logp, logp), 1)[:, :1], **strided)
    for ours, theirs in zip(got, flow(z, logp, **cond), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-13)


@modes
@kinds
def test_float32_is_near_float64(kind, cond_dim):
    flow = make(kind, 17, cond_dim, scale=1.0)
    z, logp, cond = inputs(17, cond_dim, rows=50)
    oracle = flow(z, logp, **cond)
    single = copy.deepcopy(flow).float()
    got = single(z.float(), logp.float(), **{k: x.float() for k, x in cond.items()})
    for ours, theirs in zip(got, oracle, strict=True):
        error = (ours.double() - theirs).norm() / theirs.norm()
        # Of the order of the dtype's eps times the depth of some tens of roundings.
        assert ours.dtype == torch.float32 and error < 64 * torch.finfo(torch.float32).eps


@kinds
def test_amortised_rows_depend_on_their_own_condition_only(kind):
    flow = make(kind, 3, COND)
    z, logp, cond = inputs(3, COND)
    cond = cond["cond"].requires_grad_()
    z_out, logp_out = flow(z, logp, cond=cond)
    (gradient,) = torch.autograd.grad(z_out[2].sum() + logp_out[2].sum(), cond)
    assert (gradient[2] != 0).all()
    gradient[2] = 0
    assert not gradient.any()


@modes
@kinds
def test_extreme_parameters_leave_it_invertible(kind, cond_dim):
    flow = make(kind, 4, cond_dim, scale=1.0)
    for scale in (1e2, 1e4):
        with torch.no_grad():
            for parameter in flow.parameters():
                parameter.normal_(0, scale)
        z, logp, cond = inputs(4, cond_dim, rows=200)
        z_out, logp_out = flow(z, logp, **cond)
        assert z_out.isfinite().all() and logp_out.isfinite().all()


@modes
@pytest.mark.parametrize("kind", [kind for kind in DISCRETE if kind != "iaf"])
@pytest.mark.slow
def test_the_inverse_holds_for_extreme_parameters(kind, cond_dim):
    # Of one flow, whose slope magnifies a rounding twice: that of the argument of tanh is one of
    # z_0, and that again one of z.
    flow = make(kind, 4, cond_dim, n_flows=1)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.normal_(0, 20)
    z, logp, cond = inputs(4, cond_dim, rows=50)
    with torch.no_grad():
        before, logp_before = flow(z, logp, reverse=True, **cond)
        error = (flow(before, **cond) - z).norm(dim=1)
    slope = torch.linalg.matrix_norm(jacobians(flow, before, cond), 2)
    size = before.norm(dim=1) + z.norm(dim=1)
    assert (error < 64 * torch.finfo(torch.float64).eps * (1 + slope) ** 2 * size).all()
    assert logp_before.isfinite().all()


@modes
@kinds
def test_state_dict_round_trip(kind, cond_dim):
    flow, other = make(kind, 3, cond_dim), make(kind, 3, cond_dim)
    z, logp, cond = inputs(3, cond_dim)
    assert not torch.equal(flow(z, **cond), other(z, **cond))
    other.load_state_dict(flow.state_dict())
    assert torch.equal(flow(z, **cond), other(z, **cond))
    assert torch.equal(copy.deepcopy(flow)(z, **cond), other(z, **cond))


@modes
@kinds
def test_autocast_leaves_the_map_in_the_dtype_of_the_flow(kind, cond_dim):
    flow = make(kind, 3, cond_dim).float()
    z, logp, cond = inputs(3, cond_dim)
    z, logp, cond = z.float(), logp.float(), {k: x.float() for k, x in cond.items()}
    expected = flow(z, logp, **cond)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = flow(z, logp, **cond)
        assert flow(z.bfloat16(), logp.bfloat16(), **cond)[0].dtype == torch.float32
    for ours, theirs in zip(got, expected, strict=True):
        assert torch.equal(ours, theirs)


@kinds
def test_what_does_not_fit_is_named(kind):
    free, amortised = make(kind, 3), make(kind, 3, COND)
    z, logp, cond = inputs(3, COND)
    cond = cond["cond"]
    with pytest.raises(ValueError, match=r"z: got shape \(6, 2\), expected \(B, 3\)"):
        free(z[:, :2])
    with pytest.raises(ValueError, match=r"logp: got shape \(5, 1\), expected \(6, 1\) or \(6,\)"):
        free(z, logp[:5])
    with pytest.raises(ValueError, match="z: got torch.float32 on cpu, but the flow is torch.fl"):
        free(z.float())
    with pytest.raises(ValueError, match="cond: given, but the flow is not amortised"):
        free(z, cond=cond)
    with pytest.raises(ValueError, match=r"cond: got None, expected \(6, 4\): the flow is amort"):
        amortised(z)
    with pytest.raises(ValueError, match=r"cond: got shape \(5, 4\), expected \(6, 4\)"):
        amortised(z, cond=cond[:5])
    with pytest.raises(ValueError, match="dim: got 0, expected an integer >= 1"):
        make(kind, 0)
    for dim in (2.0, True, "2", None):
        with pytest.raises(ValueError, match=f"dim: got {dim!r}, expected an integer >= 1"):
            make(kind, dim)
    with pytest.raises(ValueError, match="cond_dim: got -1, expected an integer >= 0"):
        make(kind, 3, -1)
