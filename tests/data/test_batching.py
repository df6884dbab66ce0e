import itertools

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler

from mvae_fast.data import EpochBatches, MultimodalDataset, batches

ROWS, BATCH, EPOCHS = 20, 3, 4


def expected(epoch, seed=3):
    """The batches of an epoch, from what the docstring promises."""
    order = np.random.default_rng((seed, epoch)).permutation(ROWS).tolist()
    return [order[i : i + BATCH] for i in range(0, ROWS, BATCH)]


def dataset():
    return MultimodalDataset({"label": np.arange(ROWS)})


def served(loader):
    return [x["label"].tolist() for x, _ in loader]


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
    with pytest.raises(ValueError, match="batch_size: got 0, expected an integer >= 1"):
        EpochBatches(5, 0)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_every_loop_is_the_next_epoch(num_workers):
    loader = batches(dataset(), BATCH, seed=3, num_workers=num_workers)
    assert [served(loader) for _ in range(EPOCHS)] == [expected(e) for e in range(EPOCHS)]
    again = batches(dataset(), BATCH, seed=3)
    assert served(again) == expected(0)
    again.sampler.set_epoch(2)  # a run that is resumed
    assert [served(again), served(again)] == [expected(2), expected(3)]


def test_a_loader_of_ones_own_has_new_epochs_too():
    loader = DataLoader(
        dataset(),
        sampler=EpochBatches(ROWS, BATCH, 3),
        batch_size=None,
        num_workers=1,
        persistent_workers=True,
    )
    assert [served(loader) for _ in range(3)] == [expected(e) for e in range(3)]


def test_a_loop_that_is_left_early_counts_and_one_that_never_began_does_not():
    loader = batches(dataset(), BATCH, seed=3)
    iter(loader)
    assert next(iter(loader))[0]["label"].tolist() == expected(0)[0]
    one, two = iter(loader), iter(loader)
    both = [(a["label"].tolist(), b["label"].tolist()) for (a, _), (b, _) in zip(one, two)]  # noqa: B905
    assert both == list(zip(expected(1), expected(2), strict=True))


def test_without_a_seed_every_loop_is_the_same():
    loader = batches(dataset(), BATCH)
    in_order = [list(range(i, min(i + BATCH, ROWS))) for i in range(0, ROWS, BATCH)]
    assert served(loader) == served(loader) == in_order


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"seed": -1}, "seed"),
        ({"seed": 0.5}, "seed"),
        ({"seed": "0"}, "seed"),
        ({"seed": True}, "seed"),
        ({"batch_size": 2.0}, "batch_size"),
        ({"batch_size": "2"}, "batch_size"),
        ({"num_workers": -1}, "num_workers"),
    ],
)
def test_arguments_are_checked(arguments, name):
    with pytest.raises(ValueError, match=f"^{name}: got .*, expected an integer"):
        batches(dataset(), **{"batch_size": 2, **arguments})


def test_no_rows_are_no_batches():
    assert served(batches(dataset().subset([]), BATCH, seed=0)) == []


def record(tmp_path, name, num_workers, stop_after=None, resume=None):
    """The labels that Lightning trains on, batch by batch."""
    lightning = pytest.importorskip("lightning")

    class Recorder(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))
            self.seen = []

        def training_step(self, batch, batch_idx):
            self.seen.append(batch[0]["label"].tolist())
            return self.weight**2

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    module = Recorder()
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=stop_after or EPOCHS,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = batches(dataset(), BATCH, seed=3, num_workers=num_workers)
    trainer.fit(module, loader, ckpt_path=resume)
    trainer.save_checkpoint(tmp_path / name)
    return module.seen


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.slow
def test_lightning_resumes_with_the_batches_of_an_uninterrupted_run(tmp_path, num_workers):
    whole = record(tmp_path, "whole.ckpt", num_workers)
    assert whole == list(itertools.chain(*map(expected, range(EPOCHS))))
    begun = record(tmp_path, "begun.ckpt", num_workers, stop_after=2)
    rest = record(tmp_path, "rest.ckpt", num_workers, resume=tmp_path / "begun.ckpt")
    assert begun + rest == whole


def test_lightning_shares_the_batches_of_an_epoch_among_processes():
    distributed = pytest.importorskip("lightning.fabric.utilities.distributed")
    wrapper = distributed.DistributedSamplerWrapper
    ranks = [
        DataLoader(
            dataset(),
            sampler=wrapper(EpochBatches(ROWS, BATCH, 3), num_replicas=2, rank=r, shuffle=False),
            batch_size=None,
        )
        for r in range(2)
    ]
    for epoch in range(3):
        parts = [served(loader) for loader in ranks]
        wanted = expected(epoch)
        assert parts == [wanted[::2], [*wanted[1::2], wanted[0]]]  # padded to the same number


def test_pytorchs_distributed_sampler_works_as_ever():
    sampler = DistributedSampler(dataset(), num_replicas=2, rank=1, seed=5)
    loader = DataLoader(dataset(), batch_size=BATCH, sampler=sampler)
    for epoch in range(2):
        sampler.set_epoch(epoch)
        order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(5 + epoch))[1::2]
        assert list(itertools.chain(*served(loader))) == order.tolist()
