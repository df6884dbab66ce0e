import warnings

import pytest

from mvae_fast.data import MultimodalDataset, Splits, load_dataset
from mvae_fast.experiments import devices
from mvae_fast.experiments.checks import check_models
from mvae_fast.experiments.config import TrainConfig, configured


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def config(*settings, **changes):
    return TrainConfig(**{**configured("digits", settings=settings), **changes})


def test_a_packaged_run_is_in_order(digits):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_models(config(), digits)


def test_an_annealing_that_never_ends_is_warned_of(digits):
    with pytest.warns(UserWarning, match="annealing_epochs is 20 and epochs 12: .* ends at 0.6,"):
        check_models(config(epochs=12, annealing_epochs=20), digits)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed", "32-true"])
@pytest.mark.parametrize("flags", ["avx2 avx512f", "avx2 avx512f avx512_bf16"])
def test_bf16_that_is_emulated_is_warned_of(digits, monkeypatch, precision, flags):
    monkeypatch.setattr(devices, "_cpuinfo", lambda: f"flags : {flags}\n")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        check_models(config(precision=precision, device="cpu"), digits)
    # On a CPU Lightning takes bf16-mixed for 16-mixed.
    expected = "bf16" not in flags and precision != "32-true"
    assert [w.category for w in said] == [UserWarning] * expected
    for w in said:
        assert f"precision is {precision!r} on a CPU without bf16 instructions" in str(w.message)
        assert "longer than with 32-true; remedy: precision=32-true" in str(w.message)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("flows.mvae_cnf.n_stepz=3", "flow: .*n_stepz"),
        ("flows.mvae_cnf.n_steps=many", "n_steps: got .many."),
        ("flows.mvae_cnf.solver=newton", "solver: got 'newton'"),
        ("flows.mvae_cnf.type=spline", "flow: type must be one of .* got 'spline'"),
        ("modalities.image.shape=[8, 9]", r"'image': rows must have shape \(8, 9\), got \(8, 8\)"),
        ("modalities.label.num_classes=5", "'label': .* got values from"),
        ("modalities.image.likelihood=poison", "likelihood: got 'poison', expected"),
        ("modalities.text={type: label, num_classes: 3}", "modalities must be those of digits"),
        ("precision=foo", "[Pp]recision 'foo'"),
        ("device=gpu", "device must be auto"),
    ],
)
def test_mistakes_are_named(digits, setting, message):
    with pytest.raises(ValueError, match=message):
        check_models(config(setting), digits)


def test_every_split_is_looked_at(digits):
    x, _ = digits.test[:]
    broken = MultimodalDataset({"image": x["image"], "label": x["label"] + 10})
    with pytest.raises(ValueError, match="'label'"):
        check_models(config(), Splits(digits.train, digits.validation, broken))


@pytest.mark.parametrize("part", [0, 1, 2])
def test_every_row_is_looked_at(digits, part):
    x, _ = digits[part][:]
    x["label"][-1] = 10
    parts = list(digits)
    parts[part] = MultimodalDataset(x)
    with pytest.raises(ValueError, match=r"digits: .*'label': .* got values from 0 to 10"):
        check_models(config(), Splits(*parts))


def test_data_of_another_type_are_named(digits):
    x, _ = digits.train[:]
    floats = MultimodalDataset({"image": x["image"], "label": x["label"].double()})
    with pytest.raises(ValueError, match="digits: modality 'label': .*float"):
        check_models(config(), Splits(floats, digits.validation, digits.test))
