"""What a flow can be asked for besides Euler's method, against the float64 reference on the CPU."""

import pytest
import torch

from benchmarks.common.precision import products
from mvae_fast import engines
from mvae_fast.core.tableaus import TABLEAUS
from mvae_fast.ode.regularization import FUSED_PENALTIES, REGULARIZATION_FNS
from tests.gpu.flows import Step
from tests.gpu.places import NEAR, Place, every
from tests.oracles import distance

PENALTIES = tuple(name for name, fn in REGULARIZATION_FNS.items() if fn in FUSED_PENALTIES)
OPTIONS = {
    **{name: {"solver": name} for name in TABLEAUS},
    **{f"{name}, noise": {"solver": name, "trace": "hutchinson"} for name in TABLEAUS},
    "penalties": {"regularization_fns": PENALTIES},
    "penalties, heun3": {"regularization_fns": PENALTIES, "solver": "heun3"},
    "penalties, noise": {"regularization_fns": PENALTIES, "trace": "hutchinson"},
    "checkpoints": {"n_steps": 7, "checkpoint_every": 3},
    "checkpoints, rk4": {"n_steps": 7, "checkpoint_every": 2, "solver": "rk4"},
    "end time": {"train_T": True},
    "backwards": {"reverse": True},
    "times": {"times": (0.0, 0.3, 1.0)},
    "two layers": {"hidden": (40, 33)},
    "two layers, rk4": {"hidden": (40, 33), "solver": "rk4"},
    "three layers": {"hidden": (9, 8, 7), "dim": 5},
    "no layer": {"hidden": ()},
    "weights that change": {"layer_type": "blend"},
    # More tape than a window of the CUDA engine holds, so that one begins between checkpoints.
    "weights that change, checkpoints": {
        "layer_type": "blend",
        "n_steps": 20,
        "checkpoint_every": 20,
        "batch": 10_000,
        "dim": 2,
        "hidden": (9, 5),
    },
    "second order": {"log_det": "second_order", "layer_type": "squash"},
}
REFERENCE = Place("cpu", "reference")


@pytest.mark.parametrize("precision", [None, "bf16"])
@pytest.mark.parametrize(("place", "option"), every(NEAR, [(name,) for name in OPTIONS]))
def test_option(place, option, precision):
    place.require(precision or "full")
    settings = OPTIONS[option]
    ours = eager = 0.0
    for seed in range(3):  # a single tensor may come out exact by luck
        oracle = Step(REFERENCE, dtype=torch.float64, seed=seed, **settings)()
        with products("full"):
            for_each = (
                sum(
                    map(distance, Step(where, precision=precision, seed=seed, **settings)(), oracle)
                )
                for where in (place, Place(place.device, "reference"))
            )
            ours, eager = (total + x for total, x in zip((ours, eager), for_each, strict=True))
    assert ours <= 2 * eager


@pytest.mark.parametrize("place", every(NEAR))
def test_auto_takes_what_is_made_for_the_device(place):
    chosen = engines.usual("auto", torch.device(place.device), torch.float32)
    assert chosen in {near.engine for near in NEAR if near.device == place.device}
