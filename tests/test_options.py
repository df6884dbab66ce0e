"""Each Literal that users see holds the words that the code takes."""

from typing import get_args

import pytest

from mvae_fast import engines
from mvae_fast.core import nonlinearities
from mvae_fast.data.splits import SELECTIONS
from mvae_fast.experiments.config import TrainConfig
from mvae_fast.experiments.module import OPTIMIZERS
from mvae_fast.nets import conv_layers, layers
from mvae_fast.ode import odefunc, regularization, settings
from mvae_fast.vae import ANNEALING


@pytest.mark.parametrize(
    ("literal", "words"),
    [
        (settings.Solver, settings.FIXED_GRID + settings.ADAPTIVE),
        (engines.EngineName, ("auto", *engines.ENGINES)),
        (layers.LayerType, layers.LINEAR_LAYERS),
        (layers.LayerType, conv_layers.CONV_LAYERS),
        (nonlinearities.Nonlinearity, nonlinearities._FUNCTIONS),
        (odefunc.Divergence, odefunc._TRACE_OF_DIVERGENCE),
        (regularization.Regularization, regularization.REGULARIZATION_FNS),
        (TrainConfig.__annotations__["selection"], SELECTIONS),
        (TrainConfig.__annotations__["annealing_schedule"], ANNEALING),
        (TrainConfig.__annotations__["optimizer"], OPTIMIZERS),
    ],
)
def test_a_literal_has_the_words_that_are_taken(literal, words):
    assert sorted(get_args(literal)) == sorted(words)
