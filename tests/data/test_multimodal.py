import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mvae_fast.data import EpochBatches, MultimodalDataset, batches


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


def test_batches_hold_every_row_once_in_an_order_of_seed_and_epoch():
    dataset = MultimodalDataset(arrays(50))
    loader = batches(dataset, 8, seed=3)
    assert len(loader) == 7
    orders = {}
    for epoch in (0, 1, 0):
        loader.sampler.set_epoch(epoch)
        order = torch.cat([x["label"] for x, _ in loader]).tolist()
        assert sorted(order) == list(range(50))
        assert orders.setdefault(epoch, order) == order
    assert orders[0] != orders[1]
    assert orders[0] != [i for batch in EpochBatches(50, 8, seed=4) for i in batch]


def test_subset_keeps_masks():
    dataset = MultimodalDataset(arrays(), {"label": np.array([True, False, True, True, False])})
    part = dataset.subset([4, 0])
    assert part.arrays["label"].tolist() == [4, 0]
    assert part.masks["label"].tolist() == [False, True]
    assert len(dataset.subset(dataset.masks["label"])) == 3


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
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


def test_batch_size_must_be_positive():
    with pytest.raises(ValueError, match="batch_size must be positive, got 0"):
        EpochBatches(5, 0)
