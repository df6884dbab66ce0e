import torch

from mvae_fast.flows.parameters import Parameters

SHAPES = {"a": (2, 3), "b": (4,)}


def test_free_parameters_are_one_row_within_their_bound():
    values = Parameters(SHAPES, 0, {"a": 0.2, "b": 0.1})(None)
    assert {name: tuple(x.shape) for name, x in values.items()} == {"a": (1, 2, 3), "b": (1, 4)}
    assert 0 < values["a"].abs().max() <= 0.2 and 0 < values["b"].abs().max() <= 0.1


def test_amortised_parameters_are_linear_in_the_condition():
    theta = Parameters(SHAPES, 5, {"a": 0.2, "b": 0})
    cond = torch.randn(3, 5)
    values = theta(cond)
    flat = torch.cat([x.flatten(1) for x in values.values()], 1)
    torch.testing.assert_close(flat, cond @ theta.linear.weight.T + theta.linear.bias)
    assert values["a"].any() and not values["b"].any()
    assert {name: len(x) for name, x in theta(cond[:0]).items()} == {"a": 0, "b": 0}
