"""One run, one folder, in processes that are started together."""

import subprocess
import sys
import time

import pytest
from lightning.pytorch.utilities import rank_zero_only

from mvae_fast.cli import main
from mvae_fast.experiments.folders.lock import locked
from mvae_fast.experiments.usage import UsageError
from tests.experiments.reproduce.tiny import DIGITS, options

REFUSED = "{} is in use by another run; wait for its end, or name another out"
SETTINGS = options([*DIGITS, "epochs=1", "elbo_samples=1", "iwae_samples=1"])


def snapshot(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_of_two_runs_started_together_one_is_refused(tmp_path):
    out, ready, ended = tmp_path / "out", [tmp_path / "a", tmp_path / "b"], tmp_path / "ended"
    argv = ["train", "--models", "mvae", *SETTINGS, "--out", str(out)]
    script = f"""
import pathlib, sys, time
from mvae_fast.cli import main
from mvae_fast.experiments import run as run
def wait_for(*paths):
    deadline = time.monotonic() + 100
    while not all(pathlib.Path(path).exists() for path in paths) and time.monotonic() < deadline:
        time.sleep(0.01)
def train_model(*args, train_model=run.train_model):
    wait_for({str(ended)!r})  # the other one is to come to its end while this one is at work
    return train_model(*args)
run.train_model = train_model
pathlib.Path(sys.argv[1]).touch()
wait_for(*{[str(path) for path in ready]!r})
code = main({argv!r})
pathlib.Path({str(ended)!r}).touch()
sys.exit(code)
"""
    both = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(path)],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        for path in ready
    ]
    told = {process.communicate(timeout=240)[1].strip(): process.returncode for process in both}
    assert told == {"": 0, f"mvae-fast train: {REFUSED.format(out)}": 2}
    assert (out / "table.csv").exists()


def test_a_run_is_refused_while_another_holds_the_folder_and_changes_nothing(tmp_path, capsys):
    seed = tmp_path / "runs" / "digits" / "seed0"
    train = ["train", "--models", "mvae", *SETTINGS, "--out"]
    reproduce = ["reproduce", "table1", "--models", "mvae", "--seeds", "0", *SETTINGS, "--out"]
    with locked(seed):
        before = snapshot(tmp_path)
        for argv in ([*train, str(seed)], [*train, str(seed), "--overwrite"]):
            assert main(argv) == 2
            assert REFUSED.format(seed) in capsys.readouterr().err
            assert snapshot(tmp_path) == before
        assert main([*reproduce, str(tmp_path)]) == 2  # jobs of its own or not
        assert REFUSED.format(seed) in capsys.readouterr().err
        assert snapshot(tmp_path).keys() - before.keys() == {tmp_path / ".mvae_fast.lock"}


def test_a_model_that_outlives_its_command_is_not_overwritten(tmp_path, capsys):
    """A worker of ``reproduce --jobs`` goes on for a while when the command is killed."""
    with locked(tmp_path, "mvae"):
        argv = ["train", "--models", "mvae", *SETTINGS, "--out", str(tmp_path)]
        assert main(argv) == 2
        assert f"{tmp_path / 'mvae'} is in use" in capsys.readouterr().err
        assert not (tmp_path / "mvae").exists()


def test_a_killed_process_leaves_no_lock(tmp_path):
    script = f"""
import pathlib, time
from mvae_fast.experiments.folders.lock import locked
with locked(pathlib.Path({str(tmp_path)!r})):
    print("held", flush=True)
    time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(UsageError, match="is in use by another run"), locked(tmp_path):
        pass
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 10
    while True:  # the kernel may need a moment
        try:
            with locked(tmp_path):
                return
        except UsageError:
            assert time.monotonic() < deadline


def test_only_the_first_process_of_a_training_locks(tmp_path, monkeypatch):
    with locked(tmp_path):
        monkeypatch.setattr(rank_zero_only, "rank", 1)
        with locked(tmp_path):
            pass
