"""Data as people have them: every form gives the same loss as the tensor that it means."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from mvae_fast.vae import (
    MVAE,
    Modality,
    NormalLikelihood,
    build_mvae,
    conv_modality,
    label_modality,
    load_mvae,
    mlp_modality,
    save_mvae,
)

NAMES = ["cat", "dog", "owl"]
LABELS = torch.tensor([2, 0, 1, 1])


def model(**modalities):
    torch.manual_seed(0)
    made = {"label": label_modality(3, 2, hidden=4, classes=NAMES), **modalities}
    return MVAE(made, 2).eval()


def loss(model, x):
    return model.loss(x, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "labels",
    [
        LABELS.int(),
        LABELS.to(torch.uint8),
        LABELS[:, None],
        torch.eye(3)[LABELS],
        torch.eye(3, dtype=torch.int64)[LABELS],
        LABELS.numpy().astype(">i2"),
        LABELS.tolist(),
        [NAMES[i] for i in LABELS],
        np.array(NAMES)[LABELS],
        np.array(NAMES, dtype=object)[LABELS],
        pd.Series([NAMES[i] for i in LABELS], index=[7, 3, 9, 1]),
        pd.Categorical([NAMES[i] for i in LABELS]),
        pd.DataFrame({"label": LABELS.numpy()}),
    ],
)
@pytest.mark.parametrize("ordered", [False, True])
def test_labels_of_any_form(labels, ordered):
    of = model(label=label_modality(3, 2, hidden=4, classes=NAMES, ordered=ordered))
    assert torch.equal(loss(of, {"label": labels}), loss(of, {"label": LABELS}))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["cat", "cow"], r"modality 'label': got the unknown classes \['cow'\], expected some of"),
        (torch.tensor([[1.0, 1.0, 0.0]]), r"rows must have shape \(\), got \(3,\)"),
        (torch.tensor([0, 3]), "needs data in 0..2, got values from 0 to 3"),
        (torch.tensor([0.5]), "needs int64 data"),
    ],
)
def test_labels_that_mean_nothing_are_named(labels, message):
    with pytest.raises((TypeError, ValueError), match=message):
        model().loss({"label": labels})


def test_names_need_classes():
    plain = MVAE({"label": label_modality(3, 2, hidden=4)}, 2)
    with pytest.raises(ValueError, match=r"'label': .* 'cat', .* have none; remedy: classes=\["):
        plain.loss({"label": ["cat"]})
    with pytest.raises(ValueError, match="classes: got .* expected 3 different names"):
        label_modality(3, 2, classes=["a", "b", "b"])


@pytest.mark.parametrize("build", [mlp_modality, conv_modality])
@pytest.mark.parametrize("likelihood", ["bernoulli", "continuous_bernoulli", "categorical_levels"])
def test_bytes_are_grey_values(build, likelihood):
    of = model(image=build((1, 8, 8), 2, hidden=4, likelihood=likelihood))
    grey = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8)
    with pytest.warns(UserWarning, match="uint8 data are taken for grey values 0..255"):
        got = loss(of, {"image": grey})
    assert torch.equal(got, loss(of, {"image": grey.float() / 255}))


def test_booleans_are_pixels():
    of = model(image=mlp_modality(5, 2, hidden=4))
    x = torch.rand(4, 5) > 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(loss(of, {"image": x}), loss(of, {"image": x.float()}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "form", [np.asarray, lambda x: x.tolist(), pd.DataFrame, lambda x: x[::-1].copy()[::-1]]
)
def test_numbers_of_any_form_take_the_precision_of_the_model(dtype, form):
    of = model(x=mlp_modality(3, 2, hidden=4, likelihood="normal")).to(dtype)
    x = np.random.default_rng(0).normal(size=(4, 3))
    wanted = loss(of, {"x": torch.from_numpy(x).to(dtype)})
    assert torch.equal(loss(of, {"x": form(x)}), wanted)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int16, torch.float32])
def test_counts_of_any_type(dtype):
    of = model(counts=mlp_modality(3, 2, hidden=4, likelihood="poisson"))
    x = torch.tensor([[0, 7, 100], [1, 0, 3]])
    assert torch.equal(loss(of, {"counts": x.to(dtype)}), loss(of, {"counts": x.float()}))
    mean, _ = of.modalities["counts"].encoder(x.float())
    inner = of.modalities["counts"].encoder[1]
    torch.testing.assert_close(mean, inner(x.float().log1p())[0])


@pytest.mark.parametrize(
    "name", ["train", "keys", "type", "items", "training", "_modules", "forward", "to", "train_"]
)
def test_a_modality_may_be_called_anything(name, tmp_path):
    modalities = {
        name: {"type": "mlp", "shape": 3, "hidden": 4},
        "train": {"type": "mlp", "shape": 2},
    }
    built = build_mvae({"latent_dim": 2, "modalities": modalities})
    x = {other: torch.rand(4, spec["shape"]) for other, spec in modalities.items()}
    loss(built, x).backward()
    assert all(p.grad is not None for p in built.parameters())
    assert list(built.modalities) == list(modalities) == [n for n, _ in built.items()]
    assert set(built.generate(2, {name: x[name]})) == set(modalities)
    save_mvae(built, tmp_path / "model.pt")
    built.eval()
    assert torch.equal(loss(load_mvae(tmp_path / "model.pt"), x), loss(built, x))


def test_a_row_that_is_given_goes_with_many():
    of = model(x=mlp_modality(3, 2, hidden=4))
    x = torch.rand(5, 3)
    for label in ("dog", ["dog"], 1, torch.tensor(1), torch.tensor([1])):
        got = of.generate(2, {"label": label, "x": x}, generator=torch.Generator().manual_seed(0))
        wanted = of.generate(
            2, {"label": torch.ones(5).long(), "x": x}, generator=torch.Generator().manual_seed(0)
        )
        assert torch.equal(got["x"].mean, wanted["x"].mean)
    with pytest.raises(ValueError, match="same number of rows"):
        of.generate(2, {"label": [0, 1], "x": x})


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 8, 8), (2, 9, 31), (1, 60, 33), (1, 32, 64)])
def test_convolutions_take_any_size(shape):
    of = model(image=conv_modality(shape, 2, channels=2))
    x = torch.rand(4, *shape)
    assert of.generate(1, {"image": x})["image"].mean.shape == x.shape
    of.train()
    loss(of, {"image": x}).backward()
    assert all(p.grad.isfinite().all() for p in of.modalities["image"].parameters())


def test_every_pixel_of_a_padded_image_counts():
    image = conv_modality((1, 28, 28), 2, channels=2).eval()
    x = torch.rand(1, 1, 28, 28, requires_grad=True)
    image.encoder(x)[0].sum().backward()
    assert (x.grad != 0).all()


def test_likelihoods_with_arguments_are_built_saved_and_loaded(tmp_path):
    counts = {"name": "zero_inflated_negative_binomial", "dispersion": "predicted"}
    modalities = {
        "x": {"type": "mlp", "shape": 3, "likelihood": {"name": "normal", "scale": "learned"}},
        "counts": {"type": "mlp", "shape": 4, "hidden": [8, 6, 4], "likelihood": counts},
        "image": {
            "type": "conv",
            "shape": [3, 28, 28],
            "likelihood": {"name": "beta"},
            "channels": 2,
        },
        "grade": {"type": "label", "num_classes": 3, "ordered": True, "classes": NAMES},
    }
    built = build_mvae({"latent_dim": 2, "modalities": modalities})
    x = {
        "x": torch.randn(4, 3),
        "counts": torch.randint(0, 5, (4, 4)),
        "image": torch.rand(4, 3, 28, 28).clamp(0.01, 0.99),
        "grade": ["owl", "cat", "dog", "dog"],
    }
    before = loss(built, x)
    before.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in built.parameters())
    save_mvae(built, tmp_path / "model.safetensors")
    loaded = load_mvae(tmp_path / "model.safetensors")
    assert torch.equal(loss(loaded, x), loss(built.eval(), x))


def test_weights_by_dimensions():
    x, label = {"type": "mlp", "shape": [4, 5]}, {"type": "label", "num_classes": 10}
    rule = {"weight": "dimensions"}
    built = build_mvae({"latent_dim": 2, "modalities": {"x": x | rule, "label": label | rule}})
    assert [modality.weight for _, modality in built.items()] == [1.0, 2.0]
    one = build_mvae({"latent_dim": 2, "modalities": {"x": x, "label": label | rule}})
    assert [modality.weight for _, modality in one.items()] == [1.0, 2.0]


class Doubled(NormalLikelihood):
    """A likelihood of a user's own, with an argument."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, output):
        return super().forward(self.factor * output)


def own_modality(latent_dim, width):
    made = mlp_modality(3, latent_dim, hidden=width)
    return Modality(made.encoder, made.decoder, Doubled(2.0), shape=3)


CLASSES = {"own": own_modality, "doubled": Doubled}


def test_parts_of_a_users_own_are_saved_whole_and_given_when_loaded(tmp_path):
    likelihood = {"name": "doubled", "factor": 3.0}
    modalities = {
        "a": {"type": "own", "width": 4},
        "b": {"type": "mlp", "shape": 2, "likelihood": likelihood},
    }
    built = build_mvae({"latent_dim": 2, "modalities": modalities}, CLASSES)
    assert built.modalities["b"].likelihood.factor == 3.0
    x = {"a": torch.randn(4, 3), "b": torch.randn(4, 2)}
    for file in ("model.pt", "model.safetensors"):
        save_mvae(built, tmp_path / file)
        loaded = load_mvae(tmp_path / file, classes=CLASSES)
        assert torch.equal(loss(loaded, x), loss(built.eval(), x))
        with pytest.raises(ValueError, match=r"got 'own'; remedy: classes=\{'own': \.\.\.\}"):
            load_mvae(tmp_path / file)
    built.save_pretrained(tmp_path / "folder")
    loaded = MVAE.from_pretrained(tmp_path / "folder", classes=CLASSES)
    assert torch.equal(loss(loaded, x), loss(built, x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hiden": 3}, "got the argument 'hiden', .*; did you mean hidden?"),
        ({"type": "lable"}, "got 'lable'; did you mean label"),
        ({"weight": "dimension"}, "weight: got 'dimension'"),
    ],
)
def test_what_is_misspelt_is_answered_with_the_nearest(change, message):
    label = {"type": "label", "num_classes": 3, **change}
    with pytest.raises(ValueError, match=message):
        build_mvae({"latent_dim": 2, "modalities": {"label": label}})
