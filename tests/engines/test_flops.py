"""FlopCounterMode over the compiled ops, against its own counts of the reference's products.

Counts of more rows less those of fewer: what does not grow with the rows, tables, falls out.
"""

import itertools
import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mvae_fast.engines import cpp
from mvae_fast.engines.flops import multiply_adds
from tests.oracles import cnf

needs_cpp = pytest.mark.skipif(cpp.why_missing() is not None, reason="needs the C++ engine")
DEPTHS = [(), (8,), (8, 7), (8, 7, 6)]


def count(rows, hidden, trace, layer_type="squash", memory="activations", **settings):
    """Multiply-adds of a solve of some rows, forward and backward."""
    flow = cnf(hidden, layer_type=layer_type, trace=trace, memory=memory, **settings)
    z = torch.randn(rows, 3, dtype=torch.float64, requires_grad=True)
    logp = None if trace is None else torch.zeros(rows, 1, dtype=torch.float64)
    with FlopCounterMode(display=False) as forward:
        out = flow(z, logp)
        loss = out.sum() if trace is None else out[0].sum() + out[1].sum()
        penalties = flow.get_regularization_states()
        loss = loss if penalties is None else loss + sum(penalties)
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    return torch.tensor([x.get_total_flops() // 2 for x in (forward, backward)])


def a_row(*arguments, **settings):
    many, few = (count(rows, *arguments, **settings) for rows in (7, 4))
    assert ((many - few) % 3 == 0).all()
    return ((many - few) // 3).tolist()


def products(hidden):
    widths = (3, *hidden, 3)
    return [m * n for m, n in itertools.pairwise(widths)]


@needs_cpp
@pytest.mark.parametrize("hidden", DEPTHS)
@pytest.mark.parametrize("trace", [None, "exact"])
@pytest.mark.parametrize("layer_type", ["ignore", "squash", "blend"])
@pytest.mark.parametrize("solver", ["euler", "rk4"])
def test_with_activations_kept_it_is_the_reference(hidden, trace, layer_type, solver):
    settings = {"layer_type": layer_type, "solver": solver}
    ours = a_row(hidden, trace, engine="cpp", **settings)
    theirs = a_row(hidden, trace, engine="reference", **settings)
    if trace == "exact" and len(hidden) == 3:
        # The reference takes the unit vectors through the first and the last layer for every row.
        first, *_, last = products(hidden)
        evaluations = 4 * {"euler": 1, "rk4": 4}[solver]
        theirs[0] -= 3 * evaluations * (first + last)
        # Backward: of the first, its weight's gradient; of the last, the adjoint of what enters.
        theirs[1] -= 3 * evaluations * (first + last)
    assert ours == theirs


@needs_cpp
@pytest.mark.parametrize("hidden", DEPTHS)
def test_in_full_it_is_the_roofline(hidden):
    wanted = [4 * work for work in multiply_adds((3, *hidden, 3))]
    assert a_row(hidden, "exact", engine="cpp", memory="states") == wanted


@needs_cpp
def test_counts_by_hand():
    D, m, S = 3, 8, 4
    # Hutchinson, one hidden layer, no gates: W_1 eps and W_2' eps once a solve.
    forward, backward = a_row((m,), "hutchinson", "ignore", engine="cpp", memory="states")
    assert forward == 2 * D * m * S + 2 * D * m
    # The weight of the last layer at every step, of the first once; and both products again.
    assert backward == (5 * D * m + D * m) * S + 3 * D * m
    # With gates q changes at every step; two probes, twice.
    forward, _ = a_row((m,), "hutchinson", "squash", engine="cpp", n_probes=2)
    assert forward == 2 * D * m * S + 2 * (D * m * S + D * m)
    # Penalties of f take it once more, |J eps|^2 takes W_2 v forward, and with its adjoint two.
    plain = a_row((m,), "hutchinson", "ignore", engine="cpp")
    kinetic = ("kinetic_energy",)
    kinetic = a_row((m,), "hutchinson", "ignore", engine="cpp", regularization_fns=kinetic)
    assert [a - b for a, b in zip(kinetic, plain, strict=True)] == [0, D * m * S]
    jacobian = ("jacobian_norm",)
    jacobian = a_row((m,), "hutchinson", "ignore", engine="cpp", regularization_fns=jacobian)
    assert [a - b for a, b in zip(jacobian, plain, strict=True)] == [D * m * S, 2 * D * m * S]
    # Every second state again: 2 of 4.
    every = a_row((m,), "exact", engine="cpp", checkpoint_every=2)
    assert every == [2 * D * m * S, 5 * D * m * S + 2 * D * m * 2]
    # Tr J^2: m x m forward, again in the backward, and its table's gradient.
    second = a_row((m,), "exact", engine="cpp", log_det="second_order", memory="states")
    assert second == [(2 * D * m + m * m) * S, (5 * D * m + 2 * m * m) * S]


@needs_cpp
def test_frozen_parameters_have_no_products():
    flow = cnf((8,), engine="cpp", memory="states").requires_grad_(False)
    z = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        flow(z).sum().backward()
    names = counter.get_flop_counts()["FastCNF"]
    assert {str(op) for op in names} <= {"mvae_fast.solve", "mvae_fast.solve_backward"}
    # Forward, recomputed, and the adjoint of the state.
    assert counter.get_total_flops() == 2 * 5 * 4 * (2 + 1 + 2) * 3 * 8


SCRIPT = """
import sys
import torch
from mvae_fast import FastCNF, ODEfunc, ODEnet
assert "torch.utils.flop_counter" not in sys.modules
from torch.utils.flop_counter import FlopCounterMode
flow = FastCNF(ODEfunc(ODEnet((8,), (3,))), n_steps=4, engine="cpp")
out = flow(torch.randn(5, 3))
with FlopCounterMode(display=False) as counter:
    out.sum().backward()
first = counter.get_total_flops()
with FlopCounterMode(display=False) as counter, torch.no_grad():
    flow(torch.randn(5, 3))
print(first, counter.get_total_flops())
"""


@needs_cpp
@pytest.mark.slow
def test_the_counter_is_not_imported_and_may_come_at_any_time():
    result = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [str(2 * 5 * 4 * 5 * 3 * 8), str(2 * 5 * 4 * 2 * 3 * 8)]


@needs_cpp
def test_an_adaptive_solver_counts_what_it_evaluates():
    flow = cnf((6, 5), layer_type="concat", solver="dopri5", trace="exact", engine="cpp")
    z, logp = torch.randn(7, 3, dtype=torch.float64), torch.zeros(7, 1, dtype=torch.float64)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        flow(z, logp)
    # The net's products, and M phi'.
    assert counter.get_total_flops() == 2 * 7 * flow.num_evals() * (3 * 6 + 6 * 5 + 5 * 3 + 6 * 5)
