import pytest

from mvae_fast.vae import linear_annealing


def test_rises_by_equal_steps_to_one_and_stays():
    values = [linear_annealing(step, 20) for step in range(30)]
    assert values[0] == 1 / 20
    assert all(
        b - a == pytest.approx(1 / 20) for a, b in zip(values[:19], values[1:20], strict=True)
    )
    assert values[19:] == [1.0] * 11


def test_no_annealing():
    assert linear_annealing(0, 0) == 1.0


def test_negative_steps_are_an_error():
    with pytest.raises(ValueError, match="must not be negative"):
        linear_annealing(-1, 5)
