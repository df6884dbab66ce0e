"""torch.compile and autocast around a flow on a GPU engine."""

import pytest
import torch

from benchmarks.common.precision import products
from tests.gpu.flows import Step
from tests.gpu.places import NEAR, every
from tests.oracles import distance, gradients

NETS = {
    "one layer": {},
    "two layers": {"hidden": (40, 33)},
    "noise": {"trace": "hutchinson"},
    "three layers": {"hidden": (9, 8, 7), "dim": 5},
    "bf16": {"precision": "bf16"},
    "rk4": {"solver": "rk4"},
}


@pytest.mark.parametrize(("place", "name"), every(NEAR, [(name,) for name in NETS]))
def test_compile_in_one_graph(place, name):
    place.require(NETS[name].get("precision", "full"))
    step = Step(place, **NETS[name])
    expected = step()
    torch._dynamo.reset()
    # On the CPU the default backend would need a C++ compiler; tests/engines/test_ops.py has that.
    backend = "inductor" if place.device == "cuda" else "aot_eager"
    step.flow = torch.compile(step.flow, fullgraph=True, backend=backend)
    # The engine's op is the same; the tables around it are summed in another order, and with
    # bfloat16 operands one last bit may round the other way.
    tolerance = 1e-2 if name == "bf16" else 1e-5
    for got, eager in zip(step(), expected, strict=True):
        assert distance(got, eager) < tolerance


@pytest.mark.parametrize("place", every())
def test_compile_follows_the_switch_of_float32_products(place):
    eager = {}
    for precision in ("full", "tf32"):
        with products(precision):
            eager[precision] = Step(place)()
    for precision, other in (("full", "tf32"), ("tf32", "full")):
        torch._dynamo.reset()
        with products(precision):
            step = Step(place)
            step.flow = torch.compile(step.flow, fullgraph=True, backend="aot_eager")
            got = step()
        near, far = (max(map(distance, got, eager[name])) for name in (precision, other))
        assert near < max(1e-6, far / 3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("place", every())
def test_autocast_is_the_precision_of_its_name(place, dtype):
    name = "bf16" if dtype == torch.bfloat16 else "fp16"
    plain = Step(place, precision=name if place.has(name) else "full")
    step = Step(place)
    with torch.autocast(place.device, dtype):
        outputs = step.outputs()
    got = [*outputs, *gradients(outputs, step.leaves())]
    for ours, expected in zip(got, plain(), strict=True):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, expected)


@pytest.mark.parametrize("place", every())
def test_products_follow_the_switch(place):
    """TF32 changes the results of a GPU by its rounding, and of nothing else."""
    results = []
    for precision in ("full", "tf32"):
        with products(precision):
            results.append(Step(place)())
    difference = max(map(distance, *results))
    if place.device == "cuda":
        assert 1e-6 < difference < 1e-2
    else:
        assert difference < 1e-6
