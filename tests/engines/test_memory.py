"""What the C++ engine keeps for the backward: the same results bit for bit, and when it is kept."""

import pytest
import torch

from mvae_fast import FastCNF, ODEfunc, ODEnet
from mvae_fast.core.problem import PENALTIES
from mvae_fast.core.tableaus import TABLEAUS
from mvae_fast.engines import cpp, memory
from tests.contract import FORMS, LARGER, SHAPES, TRACES, Case, cases_covering, run

pytestmark = pytest.mark.skipif(cpp.why_missing() is not None, reason="needs the C++ engine")

CASES = cases_covering(
    shape=[*SHAPES, *LARGER],
    form=FORMS,
    trace=TRACES,
    context=["", "all", "some"],
    solver=list(TABLEAUS),
    residual=[False, True],
    penalties=[(), PENALTIES[:3], PENALTIES[3:], PENALTIES],
    outputs=[None, (1, 3)],
    nonlinearity=["softplus", "tanh", "gelu"],
)


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_results_do_not_depend_on_what_is_kept(case):
    single = {"dtype": torch.float32}
    for kind in ({"dtype": torch.float64}, single, single | {"precision": "bf16"}):
        few = run("cpp", case.problem(), memory="states", **kind)
        many = run("cpp", case.problem(), memory="activations", **kind)
        for name, x in few.items():
            assert torch.equal(x, many[name]), (kind, name)


@pytest.mark.parametrize("wanted", [["z"], ["h"], ["z", "tensor 0"]])
def test_some_gradients(wanted):
    problem = Case((17, 5, (6, 7)), "squash", trace="exact").problem()
    few, many = (run("cpp", problem, wanted=wanted, memory=m) for m in ("states", "activations"))
    assert all(torch.equal(few[name], many[name]) for name in few)


def test_second_order_keeps_too():
    problem = Case((5, 3, (7,)), "tables 1EE", trace="exact", log_det="second_order").problem()
    few, many = (run("cpp", problem, memory=m) for m in ("states", "activations"))
    assert all(torch.equal(few[name], many[name]) for name in few)


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({}, memory.ACTIVATIONS),
        ({"memory": "states"}, memory.STATES),
        ({"memory": "activations"}, memory.ACTIVATIONS),
        ({"memory": 0}, memory.STATES),
        # Three evaluations of 4 rows, each of W y of two layers and M phi': in 72 numbers of 8
        # bytes, which are 9 cache lines.
        ({"memory": 3 * 4 * 3 * 72 * 8}, memory.ACTIVATIONS),
        ({"memory": 3 * 4 * 3 * 72 * 8 - 1}, memory.STATES),
        ({"memory": "activations", "checkpoint_every": 2}, memory.STATES),
    ],
)
def test_what_is_kept(changes, level):
    problem = Case((4, 66, (70, 72)), "squash", trace="exact").problem()
    assert memory.save_level(problem._replace(**changes)) == level


def test_auto_keeps_what_is_worth_it():
    small = Case((4, 2, (24, 24)), "squash", trace="exact").problem()
    assert memory.save_level(small) == memory.STATES
    large = Case((4, 64, (64, 64)), "squash", trace="exact").problem()
    assert memory.save_level(large) == memory.ACTIVATIONS


def test_auto_stays_within_its_budget(monkeypatch):
    middling = Case((4, 2, (64, 64)), "squash", trace="exact").problem()  # saves 43 a number
    problem = Case((4, 66, (70, 72)), "squash", trace="exact").problem()
    assert memory.save_level(middling) == memory.save_level(problem) == memory.ACTIVATIONS
    monkeypatch.setattr(memory, "AUTO", ((2**28, 60), (1000, 30)))
    assert memory.save_level(middling) == memory.STATES
    assert memory.save_level(problem) == memory.ACTIVATIONS
    monkeypatch.setattr(memory, "AUTO", ((1000, 60), (1000, 30)))
    assert memory.save_level(problem) == memory.STATES


@pytest.mark.parametrize("value", ["all", -1, 1.5, True, None])
def test_bad_settings_are_named(value):
    net = ODEnet((4,), (2,))
    with pytest.raises(ValueError, match="memory: got "):
        FastCNF(ODEfunc(net), memory=value)


@pytest.mark.parametrize(
    ("setting", "numbers"), [("states", 6), ("activations", 6 + 2 * 3 * 16), (0, 6)]
)
def test_flows_keep_what_they_are_told_to(setting, numbers):
    flow = FastCNF(ODEfunc(ODEnet((4,), (2,))), n_steps=2, engine="cpp", memory=setting)
    assert flow.memory == setting
    seen = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: seen.append(x.shape) or x, lambda x: x):
        flow(torch.zeros(3, 2, requires_grad=True))
    assert (numbers,) in seen
