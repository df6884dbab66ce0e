"""A record of a measurement says where, when and of which sources it is."""

import json
import subprocess
from datetime import datetime, timedelta, timezone

import pytest
import torch

from benchmarks.common import environment as module
from benchmarks.common.environment import environment


@pytest.fixture
def git(tmp_path):
    def run(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    run("init", "-q")
    (tmp_path / "file").write_text("one")
    run("add", "file")
    run("commit", "-q", "-m", "First")
    return run


def test_it_can_be_saved_and_says_when_and_with_what():
    facts = json.loads(json.dumps(environment()))
    assert facts["torch"] == torch.__version__
    age = datetime.now(timezone.utc) - datetime.fromisoformat(facts["date"])
    assert timedelta(0) <= age < timedelta(minutes=2)
    assert "commit" in facts


def test_the_commit_is_that_of_the_checkout(git, tmp_path):
    commit = git("rev-parse", "--short=12", "HEAD")
    assert module._commit(tmp_path) == commit
    (tmp_path / "result.json").touch()  # what a run writes does not change the sources
    assert module._commit(tmp_path) == commit
    (tmp_path / "file").write_text("two")
    assert module._commit(tmp_path) == f"{commit}-dirty"
    git("commit", "-q", "-a", "-m", "Second")
    git("tag", "-a", "v1", "-m", "v1")
    assert module._commit(tmp_path) == "v1"


def test_without_a_checkout_there_is_no_commit(git, tmp_path, monkeypatch):
    unpacked = tmp_path / "unpacked"  # inside of another project's checkout
    unpacked.mkdir()
    assert module._commit(unpacked) is None
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    assert module._commit(tmp_path) is None
