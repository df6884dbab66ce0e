import numpy as np
import pytest
import torch

from mvae_fast.data import EpochBatches, MultimodalDataset, batches


def test_batches_hold_every_row_once_in_an_order_of_seed_and_epoch():
    dataset = MultimodalDataset({"label": np.arange(50)})
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


def test_batch_size_must_be_positive():
    with pytest.raises(ValueError, match="batch_size must be positive, got 0"):
        EpochBatches(5, 0)
