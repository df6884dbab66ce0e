"""Arguments that do not fit are named with what came and what was expected."""

import math

import numpy as np
import pytest
import torch

from mvae_fast import FastCNF, ODEfunc, ODEnet
from mvae_fast.distributions import FlowPosterior
from mvae_fast.flows import IAF, AmortizedCNF, PlanarFlow, SequentialFlow, SylvesterFlow

Z = torch.ones(5, 3)
ZERO = torch.zeros(5, 1)
COND = torch.ones(5, 4)


def odefunc():
    return ODEfunc(ODEnet((4,), (3,)))


def flow_of(**settings):
    return FastCNF(odefunc(), **{"trace": "exact", **settings})


def amortized(**settings):
    return AmortizedCNF(**{"dim": 3, "cond_dim": 4, "hidden": (5,), **settings})


NO_BOOLEANS = ["False", "no", 0, 1, None, 1.0, (), torch.tensor(True)]
NO_COUNTS = [0, -1, 2.0, True, "3", None, math.nan, (3,), np.float64(2), torch.tensor(2)]
NO_SIZES = [0.0, -1.0, math.inf, -math.inf, math.nan, "1", None, True, (1.0,), 1j]
NO_TOLERANCES = [-1, math.inf, math.nan, "1e-5", None, True, (1e-5,)]
NO_CHOICES = ["Exact", "", 1, True, ("exact",), torch.zeros(2), np.array(["exact", "trace"])]


@pytest.mark.parametrize("value", NO_BOOLEANS)
def test_booleans_are_booleans(value):
    for name in ("train_T", "adjoint"):
        with pytest.raises(ValueError, match=rf"^{name}: got .*, expected True or False$"):
            flow_of(**{name: value})
    flow = flow_of()
    flow.adjoint = value
    with pytest.raises(ValueError, match="^adjoint: got"):
        flow(Z)
    flows = [
        (flow_of(), {}),
        (PlanarFlow(3), {}),
        (SequentialFlow([IAF(3, hidden=(4,))]), {}),
        (amortized(), {"cond": COND}),
    ]
    for flow, extra in flows:
        with pytest.raises(ValueError, match=r"^reverse: got .*, expected True or False$"):
            flow(Z, ZERO, reverse=value, **extra)


@pytest.mark.parametrize("value", NO_COUNTS)
def test_counts_are_integers(value):
    expected = ": got .*, expected an integer >= 1$"
    for name in ("n_steps", "n_probes", "checkpoint_every"):
        if name != "n_steps" or value is not None:  # whose default is None
            with pytest.raises(ValueError, match=f"^{name}{expected}"):
                flow_of(**{name: value})
        if name != "checkpoint_every":
            with pytest.raises(ValueError, match=f"^{name}{expected}"):
                amortized(**{name: value})
    builders = {
        "dim": lambda: PlanarFlow(value),
        "n_flows": lambda: IAF(3, value),
        "n_householder": lambda: SylvesterFlow(3, variant="householder", n_householder=value),
        "rank": lambda: amortized(kind="rank", rank=value),
        "hidden": lambda: amortized(hidden=(4, value)),
    }
    for name, build in builders.items():
        with pytest.raises(ValueError, match=f"^{name}{expected}"):
            build()
    for build in (lambda: amortized(hidden=4), lambda: IAF(3, hidden=4)):
        with pytest.raises(ValueError, match=r"^hidden: got 4, expected a seq.*remedy: \(4,\)$"):
            build()


@pytest.mark.parametrize("value", NO_SIZES)
def test_end_times_and_step_sizes_are_finite_and_positive(value):
    expected = ": got .*, expected > 0, a finite number$"
    for build in (flow_of, amortized):
        with pytest.raises(ValueError, match=f"^T{expected}"):
            build(T=value)
    if value is not None:  # no step size
        for solver in ("euler", "explicit_adams"):
            flow = flow_of(solver=solver)
            flow.solver_options["step_size"] = value
            with pytest.raises(ValueError, match=rf"^solver_options\['step_size'\]{expected}"):
                flow(Z)


@pytest.mark.parametrize("value", NO_TOLERANCES)
@pytest.mark.parametrize("name", ["atol", "rtol"])
def test_tolerances_are_finite_and_not_negative(name, value):
    expected = ": got .*, expected >= 0, a finite number$"
    for build in (flow_of, amortized):
        with pytest.raises(ValueError, match=f"^{name}{expected}"):
            build(**{name: value})
    flow = flow_of(solver="dopri5")
    setattr(flow, f"test_{name}", value)
    flow(Z)
    if value is None:  # as in training
        assert getattr(flow, f"test_{name}") == getattr(flow, name)
        flow.eval()(Z)
        return
    with pytest.raises(ValueError, match=f"^test_{name}{expected}"):
        flow.eval()(Z)


@pytest.mark.parametrize("value", NO_CHOICES)
def test_literals_are_one_of_their_kind(value):
    expected = ": got (.|\n)*, expected "
    for name in ("trace", "log_det", "engine", "precision", "solver"):
        with pytest.raises(ValueError, match=f"^{name}{expected}"):
            flow_of(**{name: value})
        flow = flow_of()
        setattr(flow, name, value)
        with pytest.raises(ValueError, match=f"^{name}{expected}"):
            flow(Z, ZERO)
    for name in ("trace", "log_det", "solver", "kind", "nonlinearity"):
        with pytest.raises(ValueError, match=f"^{name}{expected}"):
            amortized(**{name: value})
    with pytest.raises(ValueError, match=f"^variant{expected}"):
        SylvesterFlow(3, variant=value)
    flow = flow_of()
    flow.test_solver = value
    with pytest.raises(ValueError, match=f"^test_solver{expected}"):
        flow.eval()(Z)


@pytest.mark.parametrize("value", [None, "step_size", 0.1, [("step_size", 0.1)]])
def test_solver_options_are_a_mapping(value):
    flow = flow_of()
    flow.solver_options = value
    with pytest.raises(ValueError, match=r"^solver_options: got .*, expected a mapping"):
        flow(Z)


NO_TENSORS = [
    0.0,
    0,
    None,
    "z",
    [[0.0] * 3] * 5,
    ((0.0,) * 3,) * 5,
    {"z": Z},
    np.ones((5, 3), dtype=np.float32),
]


@pytest.mark.parametrize("value", NO_TENSORS, ids=lambda value: type(value).__name__)
def test_states_and_densities_are_tensors(value):
    kind = type(value).__name__
    for flow, logp, extra in (
        (flow_of(), "logpz", {}),
        (flow_of(solver="dopri5"), "logpz", {}),
        (PlanarFlow(3), "logp", {}),
        (SequentialFlow([PlanarFlow(3)]), "logp", {}),
        (amortized(), "logp", {"cond": COND}),
    ):
        with pytest.raises(TypeError, match=f"^z: got a {kind}, expected a torch.Tensor"):
            flow(value, ZERO, **extra)
        if value is not None:
            with pytest.raises(TypeError, match=f"^{logp}: got a {kind}, expected a torch.Tensor"):
                flow(Z, value, **extra)
            for name in extra:
                with pytest.raises(TypeError, match=f"^{name}: got a {kind}, expected a torch"):
                    flow(Z, ZERO, **{name: value})
    for name, means in (("mean", (value, Z)), ("logvar", (Z, value))):
        with pytest.raises(TypeError, match=f"^{name}: got a {kind}, expected a torch.Tensor"):
            FlowPosterior(*means)
    posterior = FlowPosterior(Z, Z)
    for name, call in (
        ("value", posterior.log_prob),
        ("z0", posterior.transport),
        ("noise", posterior.transport_noise),
    ):
        with pytest.raises(TypeError, match=f"^{name}: got a {kind}, expected a torch.Tensor"):
            call(value)
    if value is not None:
        with pytest.raises(TypeError, match=f"^probes: got a {kind}, expected a torch.Tensor"):
            flow_of(trace="hutchinson")(Z, ZERO, probes=value)


def test_the_remedy_for_another_dtype_or_layout_works():
    flow, planar = flow_of(), PlanarFlow(3)
    integers, signs, sparse = torch.ones(5, 3, dtype=torch.int64), Z > 0, Z.to_sparse()
    for call in (flow, planar, SequentialFlow([planar])):
        for z in (integers, signs, Z.to(torch.complex64)):
            with pytest.raises(ValueError, match=r"^z: got torch\..*; remedy: z.float\(\)$"):
                call(z)
            with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match="^z: got"):
                call(z)
        with pytest.raises(TypeError, match=r"^z: got a tensor of layout torch.sparse_coo"):
            call(sparse)
        assert torch.equal(call(integers.float()), call(Z))
        assert torch.equal(call(sparse.to_dense()), call(Z))
    quantised = torch.quantize_per_tensor(Z, 0.1, 0, torch.quint8)
    with pytest.raises(ValueError, match=r"^z: got torch.quint8, .*remedy: z.dequantize\(\)$"):
        flow(quantised)
    double = Z.double()
    with pytest.raises(ValueError, match=r"remedy: flow.to\(z\) or z.to\(flow.sqrt_end_time\)"):
        flow(double)
    torch.testing.assert_close(flow(double.to(flow.sqrt_end_time)), flow(Z))
    assert flow.to(double)(double).dtype == torch.float64


def test_states_of_more_axes_say_what_their_rows_are():
    class Linear(torch.nn.Module):
        def forward(self, t, y):
            return -y

    flow = FastCNF(ODEfunc(Linear()), trace="exact", n_steps=2)
    z = torch.ones(2, 3, 4)
    with pytest.raises(
        ValueError, match=r"logpz: got shape \(2, 3, 1\), expected \(2, 1\) or \(2,\)"
    ):
        flow(z, torch.zeros(2, 3, 1))
    with pytest.raises(ValueError, match=r"2 states has shape \(3, 4\).*z.flatten\(0, -2"):
        flow(z, torch.zeros(2, 3))
    # The trace of a state of 12 numbers is -12, that of each of its rows -4.
    torch.testing.assert_close(flow(z, torch.zeros(2, 1))[1], torch.full((2, 1), 12.0))
    rows = flow(z.flatten(0, -2), torch.zeros(6, 1))[1]
    torch.testing.assert_close(rows, torch.full((6, 1), 4.0))


@pytest.mark.parametrize(
    "times", [1.0, "01", {}, None.__class__, ["a", "b"], [[0.0, 1.0]], [], [1]]
)
def test_times_are_a_vector(times):
    with pytest.raises((TypeError, ValueError), match="^integration_times: got .*expected"):
        flow_of()(Z, ZERO, times)


@pytest.mark.parametrize("value", [0, "cpu", torch.Generator])
def test_generators_are_generators(value):
    for flow, extra in (
        (flow_of(trace="hutchinson"), {}),
        (amortized(trace="hutchinson"), {"cond": COND}),
    ):
        with pytest.raises(TypeError, match=r"^generator: got .*, expected a torch.Generator"):
            flow(Z, ZERO, generator=value, **extra)


def test_what_fits_in_another_guise_is_taken():
    flow = flow_of()
    expected = flow(Z, ZERO, torch.tensor([0.0, 0.5, 1.0]))
    for times in ([0.0, 0.5, 1.0], (0.0, 0.5, 1), np.array([0.0, 0.5, 1.0])):
        torch.testing.assert_close(flow(Z, ZERO, times), expected)
    plain = flow_of(T=0.5, n_steps=3, adjoint=False, atol=1e-4)
    guise = flow_of(
        T=np.float32(0.5), n_steps=np.int64(3), adjoint=np.False_, atol=np.float64(1e-4)
    )
    guise.load_state_dict(plain.state_dict())
    torch.testing.assert_close(guise(Z, ZERO), plain(Z, ZERO))
    assert flow_of(T=torch.tensor(0.25)).sqrt_end_time == 0.5
    reverse = np.True_
    assert torch.equal(plain(Z, reverse=reverse), plain(Z, reverse=True))
    for flow in (PlanarFlow(np.int64(3), np.int32(2)), IAF(np.int64(3), np.int64(1), hidden=[4])):
        assert flow(Z).shape == (5, 3)
    flow = amortized(dim=np.int64(3), hidden=np.array([4]), n_steps=np.int64(2), T=np.float32(1))
    assert flow(Z, cond=COND).shape == (5, 3)
    posterior = FlowPosterior(Z, Z)
    assert posterior.rsample((np.int64(2),)).shape == (2, 5, 3)
    with pytest.raises(ValueError, match=r"sample_shape: got 2, .*; remedy: \(2,\)"):
        posterior.rsample(2)
