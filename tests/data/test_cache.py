import json
import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mvae_fast.data import cache
from mvae_fast.data.cache import cached_images, fingerprint

SHAPE = (10, 2, 3)
MADE_FROM = {"view": "number", "files": "abc", "sigma": 0.5}


def number(row):
    return np.full(SHAPE[1:], row, np.uint8)


def forbidden(row):
    raise AssertionError(f"row {row} was rendered again")


def build(path, render=number, made_from=MADE_FROM, shape=SHAPE):
    return cached_images(path, shape, render, made_from)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(cache, "CHUNK", 4)


def test_images_are_made_once_and_mapped(tmp_path):
    path = tmp_path / "cache" / "images.npy"
    images = build(path)
    assert isinstance(images, np.memmap) and not images.flags.writeable
    assert images[:, 1, 2].tolist() == list(range(10))
    assert np.array_equal(build(path, forbidden), images)
    assert {p.name for p in path.parent.iterdir()} <= {"images.npy", "images.json", "images.lock"}


@pytest.mark.parametrize("row", [0, 7, 9])
@pytest.mark.slow
def test_a_kill_costs_at_most_a_chunk(tmp_path, row):
    path = tmp_path / "images.npy"
    program = f"""
import os, signal, pathlib
from tests.data import test_cache as t
t.cache.CHUNK = 4
def render(row):
    if row == {row}:
        os.kill(os.getpid(), signal.SIGKILL)
    return t.number(row)
t.build(pathlib.Path({str(path)!r}), render)
"""
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    killed = subprocess.run(
        [sys.executable, "-c", program], cwd=root, env={**os.environ, "PYTHONPATH": root}
    )
    assert killed.returncode == -signal.SIGKILL
    assert not path.exists()
    rendered = []
    images = build(path, lambda row: rendered.append(row) or number(row))
    assert rendered == list(range(row // 4 * 4, 10))
    assert images[:, 0, 0].tolist() == list(range(10))


def test_a_kill_right_before_the_end_renders_nothing_again(tmp_path):
    path = tmp_path / "images.npy"
    build(path)
    path.rename(tmp_path / "images.part.npy")  # the last step undone
    assert build(path, forbidden)[9, 0, 0] == 9


@pytest.mark.parametrize("left", [b"", b"\x93NUMPY", None])
def test_what_a_kill_leaves_before_the_first_note_does_not_count(tmp_path, left):
    path = tmp_path / "images.npy"
    if left is not None:
        (tmp_path / "images.part.npy").write_bytes(left)
    (tmp_path / "images.json").write_text(json.dumps({"made_from": MADE_FROM, "done": 0}))
    assert build(path)[:, 0, 0].tolist() == list(range(10))


def test_a_beginning_made_from_something_else_is_not_continued(tmp_path):
    path = tmp_path / "images.npy"
    with pytest.raises(ZeroDivisionError):
        build(path, lambda row: number(100) if row < 8 else 1 / 0)
    other = {**MADE_FROM, "files": "xyz"}
    assert build(path, made_from=other)[:, 0, 0].tolist() == list(range(10))


def test_a_deleted_cache_is_made_again(tmp_path):
    path = tmp_path / "images.npy"
    build(path)
    path.unlink()
    assert build(path)[:, 0, 0].tolist() == list(range(10))


def test_who_comes_second_waits_for_the_first(tmp_path):
    rendered = []

    def slow(row):
        time.sleep(0.01)
        rendered.append(row)
        return number(row)

    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: build(tmp_path / "images.npy", slow), range(2)))
    assert rendered == list(range(10)) and np.array_equal(*both)


def test_a_cache_of_something_else_is_refused(tmp_path):
    path = tmp_path / "images.npy"
    build(path)
    other = {**MADE_FROM, "files": "xyz"}
    with pytest.raises(
        ValueError, match="images.npy was made .* files was 'abc' and is 'xyz'; del"
    ):
        build(path, made_from=other)
    with pytest.raises(ValueError, match=r"images.npy must hold uint8 \(9, 2, 3\), got"):
        build(path, shape=(9, 2, 3))
    (tmp_path / "images.json").unlink()
    with pytest.raises(ValueError, match="images.npy has no note of what it was made from"):
        build(path)


def test_nothing_is_unpickled(tmp_path):
    path = tmp_path / "images.npy"
    build(path)
    path.write_bytes(pickle.dumps(number(0)))
    with pytest.raises(ValueError):
        build(path)


def test_the_fingerprint_follows_names_order_and_content(tmp_path):
    for name in "ab":
        (tmp_path / name).write_text(name)
    paths = [tmp_path / "a", tmp_path / "b"]
    before = fingerprint(paths)
    assert fingerprint(paths) == before != fingerprint(paths[::-1])
    os.utime(paths[1], ns=(0, 0))
    assert fingerprint(paths) != before
