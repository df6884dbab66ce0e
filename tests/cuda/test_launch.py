"""The launch arithmetic: within every limit, and what it chooses for known sizes."""

import ctypes
import itertools

import pytest

WIDE = (128, 256, 128)  # W2 of the benchmarks
KB = 1024


class Choice(ctypes.Structure):
    _fields_ = [
        ("rows", ctypes.c_int64),
        ("tiles", ctypes.c_int64),
        ("grid", ctypes.c_int64),
        ("shared_bytes", ctypes.c_int64),
        ("arena_in_shared", ctypes.c_int64),
        ("resident_bytes", ctypes.c_int64),
        ("packed_bytes", ctypes.c_int64),
        ("arena_bytes", ctypes.c_int64),
        ("window", ctypes.c_int64),
        ("workspace", ctypes.c_int64),
    ]


H100 = (132, 227 * KB)
A100 = (108, 163 * KB)
SMALL = (2, 48 * KB)


@pytest.fixture
def choose(emulator_library):
    def call(batch, widths, operands="bf16", backward=False, steps=20, device=H100, **options):
        names = ("full", "bf16", "fp16", "tf32")
        numbers = {"stages": 1, "every": 1, "gated": 0, "varying": 0} | options
        choice = Choice()
        emulator_library.launch_for(
            (ctypes.c_int64 * len(widths))(*widths),
            ctypes.c_int64(len(widths) - 1),
            ctypes.c_int64(batch),
            ctypes.c_int64(steps),
            *(ctypes.c_int64(numbers[name]) for name in ("stages", "every", "gated", "varying")),
            ctypes.c_int(names.index(operands)),
            ctypes.c_int(backward),
            (ctypes.c_int64 * 2)(*device),
            ctypes.byref(choice),
        )
        return choice

    return call


@pytest.mark.parametrize("device", [H100, A100, SMALL])
@pytest.mark.parametrize("operands", ["full", "bf16", "tf32"])
@pytest.mark.parametrize("backward", [False, True])
def test_within_the_limits(choose, device, operands, backward):
    sizes = [(1, 1, 1), (8, 64, 64, 8), WIDE, (784, 1024, 784), (3, 3), (2, *(5000,) * 5, 2)]
    batches = (1, 3, 17, 256, 4096, 100_000)
    for widths, batch, options in itertools.product(
        sizes, batches, ({}, {"gated": 1}, {"varying": 1}, {"stages": 4, "every": 3})
    ):
        x = choose(batch, widths, operands, backward, device=device, **options)
        sms, per_block = device
        assert x.rows in (16, 32, 64)
        assert (x.tiles - 1) * x.rows < batch <= x.tiles * x.rows
        assert 1 <= x.grid <= x.tiles and x.grid <= sms
        assert x.shared_bytes <= per_block
        arena = x.arena_bytes if x.arena_in_shared else 0
        assert x.shared_bytes == arena + x.resident_bytes
        assert x.resident_bytes % 16 == 0 and x.resident_bytes <= x.packed_bytes
        assert not (options.get("varying") and x.resident_bytes)
        assert x.arena_in_shared or x.arena_bytes > per_block
        assert 1 <= x.window <= 20


def test_bf16_weights_of_the_wide_net_stay_in_shared_memory(choose):
    for batch in (256, 1024, 2048, 4096):
        x = choose(batch, WIDE)
        assert x.packed_bytes == 2 * 2 * 128 * 256  # 128 KB, of Hopper's 227
        assert x.resident_bytes == x.packed_bytes and x.arena_in_shared


def test_small_batches_keep_as_many_multiprocessors_busy_as_they_can(choose):
    assert (choose(256, WIDE).rows, choose(256, WIDE).grid) == (16, 16)
    assert (choose(2048, WIDE).rows, choose(2048, WIDE).grid) == (16, 128)
    assert (choose(4096, WIDE).rows, choose(4096, WIDE).grid) == (32, 128)
    # Two turns of 64 rows: their arena leaves 87 KB, the rest comes from L2 behind the products.
    assert (choose(16384, WIDE).rows, choose(16384, WIDE).grid) == (64, 132)
    assert choose(16384, WIDE).resident_bytes > 80 * KB


def test_windows_bound_the_workspace(choose):
    for batch, steps in ((1024, 20), (16384, 20), (16384, 1000)):
        x = choose(batch, WIDE, backward=True, steps=steps)
        states = 4 * batch * 128 * (steps - 1)
        assert x.workspace <= max(64 << 20, states / 5) + (40 << 20)
        assert x.window < steps or batch == 1024
    whole = choose(16384, WIDE, backward=True, steps=1000, every=10)
    assert whole.window % 10 == 0 or whole.window < 10


def test_windows_of_tables_that_vary(choose):
    constant, varying = (
        choose(256, WIDE, backward=True, steps=1000, varying=v).window for v in (0, 1)
    )
    assert varying < constant


@pytest.mark.parametrize(
    ("batch", "widths", "window"), [(4096, WIDE, 4), (16384, (64, 256, 64), 1)]
)
def test_windows_between_checkpoints_hold_the_tables_from_the_one_before(
    choose, batch, widths, window
):
    every = 5
    without, between = (
        choose(batch, widths, "full", backward=True, every=n, varying=1) for n in (1, every)
    )
    assert without.window == between.window == window
    path = (every - 1) * between.grid * between.rows * (widths[0] + 16) * 4  # states of a segment
    packed = between.workspace - without.workspace - path
    # With room for the sums of more tiles, where tiles are smaller.
    assert 0 <= packed - (every - 1) * between.packed_bytes < 256 * KB
