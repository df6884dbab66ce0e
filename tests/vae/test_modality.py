import pytest
import torch
from torch import nn

from mvae_fast.vae import BernoulliLikelihood, Modality
from tests.vae.models import image


@pytest.mark.parametrize("weight", [0.0, -1.0, torch.inf, torch.nan])
def test_weights_must_be_positive(weight):
    with pytest.raises(ValueError, match="weight: got .*, expected a finite number > 0"):
        image(weight=weight)


def test_parts_of_the_wrong_type_are_named():
    net = nn.Linear(1, 1)
    with pytest.raises(TypeError, match="encoder must be a torch.nn.Module, got function"):
        Modality(lambda x: x, net, BernoulliLikelihood())
    with pytest.raises(TypeError, match="decoder must be a torch.nn.Module, got int"):
        Modality(net, 3, BernoulliLikelihood())
    with pytest.raises(TypeError, match="likelihood must be .* got 'bernoulli'"):
        Modality(net, net, "bernoulli")


def test_decode_gives_a_distribution_over_rows():
    distribution = image().decode(torch.zeros(2, 5))
    assert distribution.batch_shape == (2,) and distribution.event_shape == (3, 4)


def test_repr_tells_weight_likelihood_and_shape():
    assert "weight=2, BernoulliLikelihood(), shape=(3, 4)" in repr(image(weight=2.0))
