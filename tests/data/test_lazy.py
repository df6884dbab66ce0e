import pickle

import numpy as np
import pytest
import torch

from mvae_fast.data import LazyArray


def whole(n=7):
    return np.random.default_rng(0).standard_normal((n, 3)).astype(np.float32)


def sharded(tmp_path):
    values = whole()
    for i, part in enumerate(np.split(values, [2, 3])):
        np.save(tmp_path / f"{i}.npy", part)
    return LazyArray([np.load(tmp_path / f"{i}.npy", mmap_mode="r") for i in range(3)])


def test_shards_read_like_one_array(tmp_path):
    lazy, values = sharded(tmp_path), torch.from_numpy(whole())
    assert lazy.shape == values.shape and lazy.dtype == values.dtype and lazy.dim() == 2
    for index in (
        [6, 0, 2, 2],
        slice(1, 6, 2),
        torch.tensor([5, 1]),
        [],
        4,
        -1,
        torch.arange(7) > 3,
    ):
        assert torch.equal(lazy[index], values[index])


def test_takes_compose_without_copies(tmp_path):
    lazy = sharded(tmp_path)
    part = (
        lazy.take([6, 4, 4, 0]).take(torch.tensor([True, False, True, True])).take(slice(1, None))
    )
    assert torch.equal(part[:], torch.from_numpy(whole())[[4, 0]])
    assert part.shards is lazy.shards or all(map(np.shares_memory, part.shards, lazy.shards))


def test_concatenation_keeps_the_chosen_rows(tmp_path):
    lazy, values = sharded(tmp_path), torch.from_numpy(whole())
    both = LazyArray.concatenate([lazy.take([3, 1]), LazyArray.of(values).take([0]), lazy])
    assert torch.equal(both[:], torch.cat([values[[3, 1, 0]], values]))


def test_pickles_name_the_files_instead_of_holding_them(tmp_path):
    np.save(tmp_path / "big.npy", np.zeros((100_000, 4), dtype=np.float32))
    np.save(tmp_path / "columns.npy", np.asfortranarray(whole()))
    big = LazyArray([np.load(tmp_path / "big.npy", mmap_mode="r")]).take([7, 3])
    assert len(pickle.dumps(big)) < 2_000
    assert torch.equal(pickle.loads(pickle.dumps(big))[:], big[:])
    columns = LazyArray([np.load(tmp_path / "columns.npy", mmap_mode="r")])
    assert torch.equal(pickle.loads(pickle.dumps(columns))[:], torch.from_numpy(whole()))
    sliced = LazyArray([np.load(tmp_path / "columns.npy", mmap_mode="r")[2:]])
    assert torch.equal(pickle.loads(pickle.dumps(sliced))[:], torch.from_numpy(whole())[2:])


@pytest.mark.parametrize(
    "shards", [[], [np.zeros((2, 3)), np.zeros((2, 4))], [whole(), whole() > 0]]
)
def test_shards_must_fit_together(shards):
    with pytest.raises(ValueError, match="shards must hold at least one array, and rows of one"):
        LazyArray(shards)


@pytest.mark.parametrize("rows", [[7], [-1]])
def test_rows_must_exist(rows):
    with pytest.raises(IndexError, match=r"rows must lie in 0..6, got values from"):
        LazyArray([whole()], rows)


def test_other_byte_orders_are_read(tmp_path):
    values = np.arange(6, dtype=">f4").reshape(3, 2)
    np.save(tmp_path / "a.npy", values)
    lazy = LazyArray([np.load(tmp_path / "a.npy", mmap_mode="r")])
    assert lazy.dtype == torch.float32
    assert torch.equal(lazy[:], torch.arange(6.0).view(3, 2))
    assert torch.equal(pickle.loads(pickle.dumps(lazy))[:], lazy[:])


@pytest.mark.parametrize("mode", ["c", "r+"])
def test_changes_in_memory_reach_a_worker(tmp_path, mode):
    np.save(tmp_path / "a.npy", np.arange(4))
    mapped = np.load(tmp_path / "a.npy", mmap_mode=mode)
    mapped[1] = 9
    lazy = LazyArray([mapped]).take([3, 1])
    assert pickle.loads(pickle.dumps(lazy))[:].tolist() == lazy[:].tolist() == [3, 9]
