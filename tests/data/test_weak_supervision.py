import numpy as np
import pytest
import torch

from mvae_fast.data import LazyArray, MultimodalDataset, unit_interval, unpair


def dataset(n=10, masks=None):
    return MultimodalDataset(
        {
            "image": np.arange(n, dtype=np.uint8).reshape(n, 1),
            "label": np.arange(n),
            "text": np.arange(n) / 10,
        },
        masks,
        {"image": unit_interval},
    )


def patterns(part):
    """For each row which modalities it has, and the number of the row that each comes from."""
    x, mask = part[:]
    numbers = {"image": x["image"][:, 0] * 255, "label": x["label"], "text": x["text"] * 10}
    return [
        {name: round(float(values[i])) for name, values in numbers.items() if mask[name][i]}
        for i in range(len(part))
    ]


@pytest.mark.parametrize(("fraction", "paired"), [(0.1, 1), (0.3, 3), (0.95, 10), (1, 10)])
def test_every_modality_of_every_row_comes_back_once(fraction, paired):
    rows = patterns(unpair(dataset(), fraction))
    assert len(rows) == paired + 3 * (10 - paired)
    assert sum(len(row) == 3 for row in rows) == paired
    assert all(len(set(row.values())) == 1 and len(row) in (1, 3) for row in rows)
    for name in ("image", "label", "text"):
        assert sorted(row[name] for row in rows if name in row) == list(range(10))


def test_rows_that_lack_modalities_are_taken_apart_too():
    has_text = np.arange(10) % 2 == 0
    has_label = np.arange(10) != 1
    rows = patterns(unpair(dataset(masks={"text": has_text, "label": has_label}), 0.5))
    assert {"image": 1} in rows  # the row with one modality only
    assert sum(len(row) > 1 for row in rows) == 4  # round(0.5 * 9), to even
    assert sorted(row["text"] for row in rows if "text" in row) == [0, 2, 4, 6, 8]
    assert sorted(row["image"] for row in rows if "image" in row) == list(range(10))


def test_larger_fractions_keep_what_smaller_ones_keep_and_seeds_differ():
    def kept(fraction, seed=0):
        return {r["label"] for r in patterns(unpair(dataset(50), fraction, seed)) if len(r) > 1}

    assert kept(0.1) < kept(0.2) < kept(0.6)
    assert kept(0.2) == kept(0.2) != kept(0.2, seed=1)


def test_no_data_are_copied():
    whole = dataset()
    part = unpair(whole, 0.5)
    for name, array in part.arrays.items():
        assert isinstance(array, LazyArray)
        assert np.shares_memory(array.shards[0], whole.arrays[name].numpy())
    assert torch.equal(part[0][0]["image"], part[[0]][0]["image"][0])


@pytest.mark.parametrize("fraction", [0, -0.1, 1.1, float("nan")])
def test_the_fraction_is_checked(fraction):
    with pytest.raises(ValueError, match=r"fraction must be in \(0, 1\], got"):
        unpair(dataset(), fraction)


def test_a_row_must_stay_paired():
    with pytest.raises(ValueError, match="at least one row paired, got 0.01 of 10 rows"):
        unpair(dataset(), 0.01)
