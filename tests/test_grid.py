"""Integration times: refused where their order is wrong, and never at the price of a trace."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mvae_fast import FastCNF, ODEfunc, grid
from tests.oracles import random_net

Z = torch.zeros(5, 3, dtype=torch.float64)
NAN = float("nan")


@pytest.mark.parametrize(
    ("times", "pair"),
    [
        ([0.0, 1.0, 0.5], "1, then 0.5"),
        ([1.0, 0.4, 0.6, 0.0], "0.4, then 0.6"),
        ([0.3, 0.3], "0.3, then 0.3"),
        ([0.0, 0.5, 0.5, 1.0], "0.5, then 0.5"),
        ([0.0, NAN, 1.0], "0, then nan"),
        ([0.0, 1.0, NAN], "1, then nan"),
    ],
)
def test_the_first_times_out_of_order_are_named(times, pair):
    message = f"integration_times: got {pair}, expected all to increase or all to decrease"
    given = torch.tensor(times, dtype=torch.float64)
    for call in (lambda: grid.check_times(given, Z), lambda: grid.stepped(given, 0.1)):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("solver", ["euler", "dopri5"])
@pytest.mark.parametrize("options", [{}, {"step_size": 0.1}])
@pytest.mark.parametrize("reverse", [False, True])
def test_flows_refuse_them(solver, options, reverse):
    flow = FastCNF(ODEfunc(random_net((7,), 3)), solver=solver).double()
    flow.solver_options.update(options)
    with pytest.raises(ValueError, match="integration_times: got 1, then 0.5"):
        flow(Z, integration_times=torch.tensor([0.0, 1.0, 0.5]), reverse=reverse)


def test_values_that_cannot_be_read_are_taken_as_they_are():
    flow = FastCNF(ODEfunc(random_net((7,), 3)), engine="reference").double()
    many = torch.tensor([[0.0, 0.3, 1.0], [1.0, 0.7, 0.0]], dtype=torch.float64)
    expected = torch.stack([flow(Z, integration_times=times) for times in many])

    def solve(times):
        return flow(Z, integration_times=times)

    compiled = torch.compile(solve, fullgraph=True, backend="eager")
    torch.testing.assert_close(torch.stack([compiled(times) for times in many]), expected)
    torch.testing.assert_close(torch.func.vmap(solve)(many), expected)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert grid.check_times(mode.from_tensor(many[0]), mode.from_tensor(Z)).shape == (3,)
    meta = grid.check_times(many[0].to("meta"), Z.to("meta"))
    assert meta.shape == (3,)


def test_gradients_reach_the_times():
    times = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64, requires_grad=True)
    flow = FastCNF(ODEfunc(random_net((7,), 3)), n_steps=2).double()
    assert torch.autograd.gradcheck(lambda t: flow(Z, integration_times=t), times)
