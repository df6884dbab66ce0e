import pytest

from mvae_fast.vae import ANNEALING, jump_annealing, linear_annealing


def test_rises_by_equal_steps_to_one_and_stays():
    values = [linear_annealing(step, 20) for step in range(30)]
    assert values[0] == 1 / 20
    assert all(
        b - a == pytest.approx(1 / 20) for a, b in zip(values[:19], values[1:20], strict=True)
    )
    assert values[19:] == [1.0] * 11


@pytest.mark.parametrize(("epochs", "batches"), [(20, 3), (3, 7), (2, 1), (1, 4), (0, 5)])
def test_jump_is_the_schedule_of_the_original(epochs, batches):
    got, wanted = [], []
    for epoch in range(1, epochs + 3):  # the original counts its epochs from 1
        for index in range(batches):
            step = (epoch - 1) * batches + index
            got.append(jump_annealing(step, epochs * batches, batches))
            rising = (index + (epoch - 1) * batches + 1) / max(epochs * batches, 1)
            wanted.append(rising if epoch < epochs else 1.0)
    assert got == wanted


def test_schedules_differ_only_in_the_last_epoch_of_annealing():
    linear, jump = (
        [ANNEALING[name](step, 12, 4) for step in range(16)] for name in ("linear", "jump")
    )
    assert linear[:8] == jump[:8]
    assert jump[7:9] == [8 / 12, 1.0]
    assert linear[12:] == jump[12:] == [1.0] * 4


@pytest.mark.parametrize("schedule", ANNEALING.values(), ids=list(ANNEALING))
def test_no_annealing(schedule):
    assert schedule(0, 0, 10) == 1.0


@pytest.mark.parametrize("schedule", ANNEALING.values(), ids=list(ANNEALING))
def test_impossible_counts_are_an_error(schedule):
    with pytest.raises(ValueError, match="must not be negative, got -1 and 5"):
        schedule(-1, 5, 1)
    with pytest.raises(ValueError, match="must not be negative, got 1 and -5"):
        schedule(1, -5, 1)
    with pytest.raises(ValueError, match="steps_per_epoch must be positive, got 0"):
        schedule(1, 5, 0)
