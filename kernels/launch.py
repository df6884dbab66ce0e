"""The arithmetic of launches: tiles, programs, scratch, windows. Plain numbers, no Triton."""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Config:
    """Constants a kernel is compiled for.

    Args:
        rows: BM, rows of a tile.
        columns: BN, columns that a product makes at a time, in the forward.
        adjoint_columns: The same in the adjoint, which keeps more of them in registers.
        depth: BK, columns that a product takes up at a time.
        warps: Of a program.
        stages: Of the software pipeline over the depth.
    """

    rows: int
    columns: int
    adjoint_columns: int
    depth: int
    warps: int
    stages: int


# Threads of a persistent grid for each multiprocessor: as many as fit with the 255 registers that
# tests/kernels/test_compile.py allows. More programs would only take more scratch.
_RESIDENT_THREADS = 256
# Scratch for the operands of the weight gradients. They are written and read once by the tensor
# cores' next launch, so that a window should be deep enough to fill them and small enough to leave
# the memory to the user: at most this, or a fifth of what the solve saves anyway.
_TAPE_BYTES = 32 << 20


def choose(batch: int, itemsize: int, processors: int, full: bool = False) -> Config:
    """The configuration for a batch: the tallest tile that still gives every processor a program.

    A taller tile reads the weights less often: they are streamed from L2 once a step and tile.

    Args:
        batch: B, the rows.
        itemsize: Bytes of a product's operand.
        processors: Streaming multiprocessors of the device.
        full: Float32 products by three of TF32, which hold two halves of every operand.

    Example:
        >>> choose(256, 4, 132).rows, choose(16384, 4, 132).rows
        (16, 64)
    """
    rows = 64
    while rows > 16 and -(-batch // rows) < processors:
        rows //= 2
    warps = 8 if rows == 64 else 4
    if itemsize == 8:  # half as many columns: an accumulator takes two registers
        return Config(min(rows, 32), 16, 16, 16, 4, 2)
    if full:
        return Config(rows, 32, 16, 16, warps, 2)
    # 64 bytes of a row at a time would be the least that L2 gives; 128 keep the tensor cores fed.
    return Config(rows, rows, 32, 128 // itemsize, warps, 2)


def programs(batch: int, config: Config, processors: int) -> int:
    """The size of the persistent grid: no more programs than tiles, nor than can be resident."""
    resident = _RESIDENT_THREADS // (32 * config.warps) * processors
    return max(1, min(-(-batch // config.rows), resident))


def window(steps: int, tiles: int, tile_bytes: int, saved_bytes: int) -> tuple[int, int]:
    """How many steps, and of how many tiles, to keep on the tape at a time.

    Args:
        steps: S, all of them.
        tiles: All of them.
        tile_bytes: Of tape, for one step of one tile.
        saved_bytes: Of the states that the forward saved.

    Returns:
        All tiles of as many steps as the budget holds, or as many tiles as it holds of one.

    Example:
        >>> window(20, 64, 1 << 17, 0), window(20, 512, 1 << 17, 0)
        ((4, 64), (1, 256))
    """
    budget = max(_TAPE_BYTES, saved_bytes // 5)
    affordable = max(1, budget // max(tile_bytes, 1))
    return max(1, min(steps, affordable // tiles)), min(tiles, affordable)


def blocks_per_split(blocks: int, tiles: int, processors: int) -> int:
    """How many blocks of rows one share of a weight gradient takes.

    As few shares as give every processor two programs: each is a copy of the gradient.

    Args:
        blocks: Of rows, in a group.
        tiles: Of results, in all groups.
        processors: As of `choose`.
    """
    splits = max(1, min(blocks, 2 * processors // max(tiles, 1)))
    return max(1, -(-blocks // splits))


def gradient_tiles(
    pieces: list[tuple[int, int, int, int, int]], rows: int, columns: int
) -> list[tuple[int, ...]]:
    """The rows of ``tile_table`` of `mvae_fast.kernels.table_gradient`.

    Args:
        pieces: (left column, right column, n_i, n_j, where it begins) of each table.
        rows: BI.
        columns: BJ.
    """
    return [
        (left, right, i, j, n_i, n_j, base)
        for left, right, n_i, n_j, base in pieces
        for i in range(0, n_i, rows)
        for j in range(0, n_j, columns)
    ]


@functools.lru_cache(maxsize=512)
def table(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Constants on the device, copied there once: a copy in each solve would stall the host, and
    could not be captured in a CUDA graph."""
    return torch.tensor(values, dtype=dtype).to(device)
