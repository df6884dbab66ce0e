import pytest
import torch
from torch.nn import functional as F

from mvae_fast.vae import BernoulliLikelihood, CategoricalLikelihood, NormalLikelihood


def test_bernoulli_of_grey_values_is_the_binary_cross_entropy():
    logits, x = torch.randn(3, 4, 5) * 30, torch.rand(3, 4, 5)
    wanted = F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum((1, 2))
    torch.testing.assert_close(-BernoulliLikelihood()(logits).log_prob(x), wanted)


def test_categorical_is_the_cross_entropy_of_all_positions():
    logits, x = torch.randn(3, 6, 4), torch.randint(0, 4, (3, 6))
    wanted = F.cross_entropy(logits.transpose(1, 2), x, reduction="none").sum(1)
    torch.testing.assert_close(-CategoricalLikelihood(4)(logits).log_prob(x), wanted)


def test_normal_has_the_scale_it_was_given():
    x = torch.randn(3, 4)
    got = NormalLikelihood(0.5)(torch.zeros(3, 4)).log_prob(x)
    wanted = (-0.5 * (x / 0.5) ** 2 - torch.log(torch.tensor(0.5 * (2 * torch.pi) ** 0.5))).sum(1)
    torch.testing.assert_close(got, wanted)


def test_bad_parameters_are_named():
    with pytest.raises(ValueError, match="num_classes: got 1, expected an integer >= 2"):
        CategoricalLikelihood(1)
    with pytest.raises(ValueError, match="scale: got 0.0, expected a finite number > 0"):
        NormalLikelihood(0.0)
    with pytest.raises(ValueError, match="of 4 classes needs as many logits, the decoder gave 5"):
        CategoricalLikelihood(4)(torch.zeros(2, 5))


def test_bad_data_are_named():
    with pytest.raises(ValueError, match="finite"):
        NormalLikelihood().check(torch.tensor([torch.nan]))
    with pytest.raises(TypeError, match="floating-point"):
        NormalLikelihood().check(torch.tensor([1]))
    with pytest.raises(ValueError, match="got values from 0 to 255"):
        BernoulliLikelihood().check(torch.tensor([0.0, 255.0]))


def test_reprs_say_what_they_are():
    assert repr(BernoulliLikelihood()) == "BernoulliLikelihood()"
    assert repr(CategoricalLikelihood(3)) == "CategoricalLikelihood(3)"
    assert repr(NormalLikelihood(0.5)) == "NormalLikelihood(0.5)"
