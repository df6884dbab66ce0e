import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mvae_fast.data import LazyArray, MultimodalDataset, unit_interval


def arrays(n=5):
    return {
        "image": np.arange(n * 4, dtype=np.float64).reshape(n, 2, 2) / (n * 4),
        "label": np.arange(n, dtype=np.uint8),
    }


def test_types_become_those_of_the_model():
    x, mask = MultimodalDataset(arrays())[3]
    assert x["image"].dtype == torch.float32 and x["image"].shape == (2, 2)
    assert x["label"].dtype == torch.int64 and x["label"] == 3
    assert mask == {}


def test_items_slices_and_lists_agree():
    dataset = MultimodalDataset(arrays(), {"label": np.array([True, False, True, True, False])})
    assert len(dataset) == 5
    x, mask = dataset[[4, 1]]
    for i, row in enumerate((4, 1)):
        one, has = dataset[row]
        assert torch.equal(x["image"][i], one["image"])
        assert mask["label"][i] == has["label"]
    assert torch.equal(dataset[1:3][0]["label"], torch.tensor([1, 2]))


def test_the_ordinary_loader_works_too():
    dataset = MultimodalDataset(arrays(), {"label": np.ones(5, dtype=bool)})
    x, mask = next(iter(DataLoader(dataset, batch_size=3)))
    assert x["image"].shape == (3, 2, 2) and mask["label"].shape == (3,)


def test_subset_keeps_masks():
    dataset = MultimodalDataset(arrays(), {"label": np.array([True, False, True, True, False])})
    part = dataset.subset([4, 0])
    assert part.arrays["label"].tolist() == [4, 0]
    assert part.masks["label"].tolist() == [False, True]
    assert len(dataset.subset(dataset.masks["label"])) == 3


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (({"a": np.zeros(3)}, None, {"b": unit_interval}), ValueError, "transforms names 'b'"),
        (({},), ValueError, "at least one modality"),
        (({"a": np.zeros(3), "b": np.zeros(4)},), ValueError, "same number of rows"),
        (({"a": 3.0},), ValueError, "'a': data must be"),
        (({"a": np.zeros(3, dtype=bool)},), TypeError, "'a': data must be floats or integers"),
        (({"a": np.zeros(3)}, {"b": np.ones(3, dtype=bool)}), ValueError, "masks names 'b'"),
        (({"a": np.zeros(3)}, {"a": np.ones(3)}), TypeError, r"masks\['a'\] must be boolean"),
        (({"a": np.zeros(3)}, {"a": np.ones(2, dtype=bool)}), ValueError, r"must be \(3,\)"),
    ],
)
def test_bad_arrays_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        MultimodalDataset(*arguments)


def uint8_dataset(images):
    return MultimodalDataset(
        {"image": images, "label": np.arange(len(images))},
        {"label": np.arange(len(images)) != 1},
        {"image": unit_interval},
    )


@pytest.fixture
def images(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (6, 2, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", values)
    return values, np.load(tmp_path / "images.npy", mmap_mode="r")


@pytest.mark.parametrize("mapped", [False, True])
def test_transforms_serve_what_is_stored_otherwise(images, mapped):
    dataset = uint8_dataset(images[mapped])
    assert dataset.arrays["image"].dtype == torch.uint8
    expected = torch.from_numpy(images[0]).float() / 255
    assert torch.equal(dataset[:][0]["image"], expected)
    assert torch.equal(dataset[[4, 1]][0]["image"], expected[[4, 1]])
    for index in (4, np.int64(4), -2):
        assert torch.equal(dataset[index][0]["image"], expected[4])
    part = dataset.subset([3, 1]).subset(torch.tensor([False, True]))
    assert torch.equal(part[0][0]["image"], expected[1]) and not part[0][1]["label"]


def test_memory_maps_stay_files_until_rows_are_read(images):
    dataset = uint8_dataset(images[1])
    for part in (dataset, dataset.subset([0, 2]), dataset.concatenate(dataset)):
        stored = part.arrays["image"]
        assert isinstance(stored, LazyArray)
        assert all(np.shares_memory(shard, images[1]) for shard in stored.shards)


def test_memory_maps_without_transform_are_served_in_the_types_of_the_model(images):
    x, _ = MultimodalDataset({"image": images[1]})[1:3]
    assert x["image"].dtype == torch.int64
    x, _ = MultimodalDataset({"image": LazyArray([np.ones((2, 3))])})[0]
    assert x["image"].dtype == torch.float32 and x["image"].shape == (3,)


@pytest.mark.parametrize("context", ["fork", "spawn"])
@pytest.mark.slow
def test_worker_processes_serve_the_same(images, context):
    dataset = uint8_dataset(images[1])
    loader = DataLoader(dataset, batch_size=4, num_workers=1, multiprocessing_context=context)
    served = torch.cat([x["image"] for x, _ in loader])
    assert torch.equal(served, dataset[:][0]["image"])


def test_concatenation_joins_rows_and_masks():
    a = MultimodalDataset(arrays(2))
    b = MultimodalDataset(arrays(3), {"label": np.array([True, False, True])})
    x, mask = a.concatenate(b)[:]
    assert x["label"].tolist() == [0, 1, 0, 1, 2]
    assert torch.equal(x["image"], torch.cat([a[:][0]["image"], b[:][0]["image"]]))
    assert mask["label"].tolist() == [True, True, True, False, True]


def test_concatenation_needs_the_same_modalities_and_transforms():
    dataset = MultimodalDataset({"a": np.zeros((2, 1), dtype=np.uint8)})
    with pytest.raises(ValueError, match=r"must have the modalities \['a'\], got \['b'\]"):
        dataset.concatenate(MultimodalDataset({"b": np.zeros(2)}))
    other = MultimodalDataset({"a": np.zeros((2, 1), dtype=np.uint8)}, None, {"a": unit_interval})
    with pytest.raises(ValueError, match="same transforms"):
        dataset.concatenate(other)


def test_unit_interval_needs_bytes():
    with pytest.raises(TypeError, match="x must be uint8, got torch.float32"):
        unit_interval(torch.ones(2))


@pytest.mark.parametrize("lazy", [False, True])
def test_subsets_of_every_kind(lazy):
    label = np.arange(5)
    dataset = MultimodalDataset(
        {"label": LazyArray([label]) if lazy else label}, {"label": label != 1}
    )
    for index, rows in (
        ([], []),
        ((), []),
        (np.array([]), []),
        (torch.tensor([]), []),
        (range(1, 3), [1, 2]),
        (slice(None, None, 2), [0, 2, 4]),
        ([-1, 0, 0], [4, 0, 0]),
        (np.array([3, 1], np.int8), [3, 1]),
        ([True, False, False, True, False], [0, 3]),
        (label > 3, [4]),
        (label > 9, []),
    ):
        part = dataset.subset(index)
        x, mask = part[:]
        assert len(part) == len(rows) and x["label"].tolist() == rows
        assert x["label"].dtype == torch.int64
        assert mask["label"].tolist() == [row != 1 for row in rows]
        assert len(part.subset([])) == 0


@pytest.mark.parametrize(
    ("index", "error", "message"),
    [
        ([5], IndexError, "5 is out of bounds"),
        ([-6], IndexError, "-6 is out of bounds"),
        ([True, False], IndexError, "boolean index did not match"),
        ([0.5], IndexError, "integer"),
        (3, ValueError, r"index: got shape \(\), expected \(n,\)"),
        ([[1]], ValueError, r"index: got shape \(1, 1\)"),
    ],
)
def test_subsets_that_are_not_there_are_named(index, error, message):
    with pytest.raises(error, match=message):
        MultimodalDataset({"label": np.arange(5)}).subset(index)
