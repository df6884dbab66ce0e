import hashlib

import torch

from mvae_fast.data import shapes6


def test_the_rows_are_always_the_same():
    splits = shapes6()
    assert [len(part) for part in splits] == [2000, 200, 500]
    digest = hashlib.sha256()
    for part in splits:
        for name in ("image", "outline", "label", "size"):
            digest.update(part.arrays[name].numpy().tobytes())
    assert digest.hexdigest() == (
        "8bced5da50b9ae358179146181227d83ae84b48e3b194aa599a5951281cbbc0a"
    )


def test_splits_share_no_row():
    images = torch.cat([part.arrays["image"].flatten(1) for part in shapes6()])
    assert len(images.unique(dim=0)) == len(images)


def test_the_image_shows_position_brightness_and_size():
    x, _ = shapes6().train[:]
    image = x["image"][:, 0]
    axis = torch.arange(16.0)
    weight = image.sum((1, 2))
    mean_x, mean_y = (image.sum(1) @ axis) / weight, (image.sum(2) @ axis) / weight
    centre = x["position"] * (25 / 12) ** 0.5 + 7.5
    assert (torch.stack([mean_x, mean_y], 1) - centre).abs().max() < 0.7
    bright = x["attributes"][:, 3] == 1
    assert image.amax((1, 2))[bright].min() > 0.69 and image.amax((1, 2))[~bright].max() < 0.71
    covered = (image > 0.2).float().sum((1, 2))
    for label in range(4):
        means = [covered[(x["label"] == label) & (x["size"] == s)].mean() for s in range(3)]
        assert means[0] < means[1] < means[2]


def test_the_other_modalities_agree():
    x, _ = shapes6().test[:]
    assert torch.equal(x["attributes"][:, :2], (x["position"] > 0).float())
    assert torch.equal(x["attributes"][:, 2], (x["size"] == 2).float())
    assert x["label"].unique().tolist() == [0, 1, 2, 3]
    assert x["position"].mean(0).abs().max() < 0.15
    assert (x["position"].std(0) - 1).abs().max() < 0.1


def test_the_outline_is_dark_inside_and_outside():
    x, _ = shapes6().test[:]
    disc = (x["label"] == 0) & (x["size"] == 2)
    centre = (x["position"][disc] * (25 / 12) ** 0.5 + 7.5).round().long()
    rows = torch.arange(len(centre))
    assert x["outline"][disc][rows, 0, centre[:, 1], centre[:, 0]].max() == 0
    assert (x["image"][disc][rows, 0, centre[:, 1], centre[:, 0]] > 0.39).all()
    assert x["outline"][disc].flatten(1).amax(1).min() > 0.8
