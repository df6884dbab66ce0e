"""A process that is killed outright, and the same command again."""

import csv
import os
import signal
import subprocess
import sys
import time

from mvae_fast.cli import main
from tests.experiments.reproduce.tiny import DIGITS, options

SETTINGS = [*DIGITS, "epochs=12", "batch_size=60"]


def command(out):
    return ["reproduce", "table1", "--seeds", "0", "--out", str(out), *options(SETTINGS)]


def wait_for(path, process):
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline, f"{path} was never written"
        time.sleep(0.01)


def numbers(out):
    with (out / "table1_digits.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_table_is_that_of_an_undisturbed_run(tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    runs = killed / "runs" / "digits" / "seed0"
    # Once while the first model trains, once while the second does.
    for name in ("mvae", "mvae_cnf"):
        process = subprocess.Popen(
            [sys.executable, "-m", "mvae_fast.cli", *command(killed)],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_for(runs / name / "last.ckpt", process)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not (runs / name / "finished.json").exists()
    assert main(command(killed)) == 0
    assert main(command(whole)) == 0
    assert numbers(killed) == numbers(whole)
