"""The arithmetic of the Triton launches."""

import itertools

import pytest
import torch

from mvae_fast.kernels import launch

H200 = 132  # streaming multiprocessors
BATCHES = (1, 16, 17, 256, 1024, 4096, 16384, 10**6)


@pytest.mark.parametrize(
    ("batch", "rows"), [(1, 16), (256, 16), (1024, 16), (4096, 16), (4224, 32), (16384, 64)]
)
def test_tiles_keep_every_processor_busy(batch, rows):
    # The tallest tile of which there is one for every processor, else the lowest there is.
    assert launch.choose(batch, 4, H200).rows == rows


@pytest.mark.parametrize("itemsize", [2, 4, 8])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("batch", BATCHES)
def test_every_configuration_fits_the_tensor_cores(itemsize, full, batch):
    config = launch.choose(batch, itemsize, H200, full)
    sizes = (config.rows, config.columns, config.adjoint_columns, config.depth)
    assert all(n >= 16 and n & (n - 1) == 0 for n in sizes)
    assert config.warps in (4, 8) and config.stages == 2
    assert config.depth * itemsize <= 128
    # The pipeline's buffers for both operands, in the 99 KB that the least of the targets gives.
    wide = max(config.columns, config.adjoint_columns)
    assert config.stages * (config.rows + wide) * config.depth * itemsize <= 99 << 10


@pytest.mark.parametrize("batch", BATCHES)
def test_no_program_without_a_tile(batch):
    config = launch.choose(batch, 4, H200)
    tiles = -(-batch // config.rows)
    grid = launch.programs(batch, config, H200)
    assert 1 <= grid <= tiles
    assert grid == tiles or grid * config.warps * 32 == 256 * H200


def test_windows_keep_to_their_budget():
    for steps, tiles, size, saved in itertools.product(
        (1, 20, 160), (1, 64, 1024), (1 << 10, 1 << 20, 1 << 28), (0, 1 << 30, 1 << 33)
    ):
        window, height = launch.window(steps, tiles, size, saved)
        assert 1 <= window <= steps and 1 <= height <= tiles
        # A stripe of the tiles only where one step of all is too much.
        assert window == 1 or height == tiles
        budget = max(32 << 20, saved // 5)
        assert (window, height) == (1, 1) or window * height * size <= budget


@pytest.mark.parametrize("blocks", [1, 2, 63, 1000])
@pytest.mark.parametrize("tiles", [1, 24, 264, 5000])
def test_shares_cover_all_rows(blocks, tiles):
    share = launch.blocks_per_split(blocks, tiles, H200)
    splits = -(-blocks // share)
    assert share >= 1 and splits * share >= blocks
    # At most two programs a processor, unless the tiles alone are more.
    assert splits * tiles <= max(2 * H200, tiles)


def test_gradient_tiles_cover_each_table_once():
    pieces = [(0, 16, 96, 32, 0), (96, 48, 48, 96, 96 * 32)]
    covered = torch.zeros(96 * 32 + 48 * 96, dtype=torch.int)
    for left, right, i, j, n_i, n_j, base in launch.gradient_tiles(pieces, 64, 64):
        assert (left, right, n_i, n_j, base) in pieces
        table = covered[base : base + n_i * n_j].view(n_i, n_j)
        table[i : i + 64, j : j + 64] += 1
    assert (covered == 1).all()


def test_constants_are_copied_to_the_device_once():
    first = launch.table((1, 2, 3), torch.int32, torch.device("cpu"))
    assert first.tolist() == [1, 2, 3] and first.dtype == torch.int32
    assert launch.table((1, 2, 3), torch.int32, torch.device("cpu")) is first
