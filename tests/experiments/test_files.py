import errno
import json
import os
import resource
import signal

import pytest
import torch

from mvae_fast.experiments.folders.files import make_folder, write_json, write_saved
from mvae_fast.experiments.folders.resuming import WholeCheckpoints
from mvae_fast.files import write_bytes


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "new" / "numbers.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in path.parent.iterdir()] == ["numbers.json"]


def test_a_folder_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").touch()
    for path, reason in (("file", "File exists"), ("file/a/b", "Not a directory")):
        with pytest.raises(ValueError, match=f"--out must be a folder, got .*{path}: {reason}"):
            make_folder(tmp_path / path, "--out")
    assert make_folder(str(tmp_path / "a" / "b"), "--out").is_dir()
    assert make_folder(tmp_path / "a", "--out") == tmp_path / "a"


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    path = tmp_path / "last.ckpt"
    path.write_bytes(b"good")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match=r"No space left on device: .*last.ckpt"):
        write_bytes(path, b"new", previous=tmp_path / "previous.ckpt")
    kept = [p for p in tmp_path.iterdir() if p.read_bytes() == b"good"]
    assert len(kept) == 1 and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("ended", ["killed", "limited"])
def test_a_write_that_ends_half_way_leaves_the_old_file(tmp_path, monkeypatch, ended):
    """By SIGKILL in its midst, or as the file system takes no more: both in a process of its own,
    whose temporary files are on another one."""
    path, tmp = tmp_path / "run" / "last.ckpt", tmp_path / "tmp"
    tmp.mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp))
    write_saved(path, {"weights": torch.ones(3)})
    child = os.fork()
    if child == 0:
        try:
            _write_and_end(path, ended)
        except OSError as error:
            os._exit(error.errno)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if ended == "killed":
        assert os.WTERMSIG(status) == signal.SIGKILL
    else:
        assert os.waitstatus_to_exitcode(status) == errno.EFBIG
        assert [p.name for p in path.parent.iterdir()] == ["last.ckpt"]
    assert torch.equal(torch.load(path)["weights"], torch.ones(3))
    assert not list(tmp.iterdir())


def _write_and_end(path, ended):
    def fsync(descriptor):
        os.ftruncate(descriptor, 10_000)  # so much of it has come to the disk
        os.kill(os.getpid(), signal.SIGKILL)

    if ended == "killed":
        os.fsync = fsync
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    checkpoints = WholeCheckpoints({"last.ckpt": "previous.ckpt"})
    checkpoints.save_checkpoint({"weights": torch.zeros(100_000)}, path)


def test_the_checkpoint_before_is_kept(tmp_path):
    checkpoints = WholeCheckpoints({"last.ckpt": "previous.ckpt"})
    for i in range(3):
        for name in ("last.ckpt", "best.ckpt"):
            checkpoints.save_checkpoint({"state_dict": {}, "i": i}, tmp_path / name)
    assert checkpoints.load_checkpoint(tmp_path / "last.ckpt")["i"] == 2
    assert checkpoints.load_checkpoint(tmp_path / "previous.ckpt")["i"] == 1
    assert {p.name for p in tmp_path.iterdir()} == {"last.ckpt", "previous.ckpt", "best.ckpt"}
    checkpoints.remove_checkpoint(tmp_path / "best.ckpt")
    assert (tmp_path / "best.ckpt").exists()
