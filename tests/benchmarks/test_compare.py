"""This checkout against itself, against a commit that is built, and against what is neither."""

import re
import subprocess
import sys

import pytest

from benchmarks import compare
from benchmarks.common.interleave import Quartiles
from mvae_fast.engines import cpp as ops

engine = pytest.mark.skipif(ops.why_missing() is not None, reason="needs the C++ engine")

#: Of a repository whose engine is a file that says which build it is.
SETUP = """
import pathlib, sys
assert sys.argv[1:] == ["-q", "build_ext", "--inplace"]
package = pathlib.Path("mvae_fast")
builds = package / "builds"
builds.write_text(builds.read_text() + "x" if builds.exists() else "x")
(package / NAME).write_text("no compiler")
"""


def run(*argv):
    command = [sys.executable, "-m", "benchmarks.compare", *argv]
    return subprocess.run(command, cwd=compare.ROOT, capture_output=True, text=True)


@engine
def test_against_itself():
    done = run(str(compare.ROOT), "--workloads", "W1", "--budget", "0", "--clock", "cpu")
    assert done.returncode == 0, done.stderr
    pattern = r"\| W1 \| 1 \| ([\d.]+) \| ([\d.]+) \(.*\) \| 15 \| (slower|faster|the same) \|"
    (row,) = re.findall(pattern, done.stdout)
    # Nothing but noise keeps the same code from 1, and not by so much.
    assert float(row[0]) > 0 and 0.2 < float(row[1]) < 5
    said = done.stdout.splitlines()[-1]
    assert ("W1 (1)" in said) == (row[2] == "slower") and said.startswith("Slower beyond")


@engine
def test_a_folder_without_the_package_is_named(tmp_path):
    done = run(str(tmp_path), "--workloads", "W1", "--budget", "0")
    assert done.returncode != 0 and str(tmp_path) in done.stderr


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A git repository in place of this one: HEAD builds an engine, HEAD~1 does not."""
    root = tmp_path / "root"
    (root / "mvae_fast").mkdir(parents=True)
    (root / "mvae_fast" / "__init__.py").touch()
    git = ["git", "-C", str(root), "-c", "user.name=x", "-c", "user.email=x"]
    subprocess.run([*git, "init", "-q"], check=True)
    for name in ("_build_error.txt", "_C.abi3.so"):
        (root / "setup.py").write_text(f"NAME = {name!r}\n{SETUP}")
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "-qm", name], check=True)
    monkeypatch.setattr(compare, "ROOT", root)
    return root


def builds(tree):
    return (tree / "mvae_fast" / "builds").read_text()


def test_a_commit_is_built_once(repository, tmp_path):
    cache = tmp_path / "cache"
    tree = compare.checkout("HEAD", cache)
    assert tree.parent == cache and len(tree.name) == 40
    assert (tree / "mvae_fast" / "_C.abi3.so").exists() and builds(tree) == "x"
    assert compare.checkout(tree.name[:10], cache) == tree and builds(tree) == "x"
    # A build that was stopped is made again, as is a cache that was deleted by hand.
    (tree / "mvae_fast" / "_C.abi3.so").unlink()
    assert compare.checkout("HEAD", cache) == tree and builds(tree) == "xx"
    subprocess.run(["rm", "-r", str(cache)], check=True)
    assert compare.checkout("HEAD", cache) == tree and builds(tree) == "x"


def test_a_commit_without_an_engine_says_why(repository, tmp_path):
    with pytest.raises(SystemExit, match="REV: HEAD~1 has no C\\+\\+ engine\nno compiler"):
        compare.checkout("HEAD~1", tmp_path / "cache")


def test_neither_a_commit_nor_a_folder(repository, tmp_path):
    with pytest.raises(SystemExit, match="REV: got 'nowhere', expected a commit or a folder"):
        compare.checkout("nowhere", tmp_path / "cache")


def test_the_cache_is_the_user_s(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compare.cache_folder() == tmp_path / "mvae_fast" / "compare"


def test_verdict():
    assert compare.verdict(Quartiles(1.02, 1.05, 1.09)) == "slower"
    assert compare.verdict(Quartiles(0.98, 1.05, 1.09)) == "the same"
    assert compare.verdict(Quartiles(0.9, 0.95, 0.99)) == "faster"


@pytest.mark.parametrize(
    ("ratio", "limit", "status"),
    [
        (Quartiles(1.02, 1.08, 1.1), "1.05", 1),
        (Quartiles(1.02, 1.04, 1.1), "1.05", None),  # not by so much
        (Quartiles(0.98, 1.08, 1.2), "1.05", None),  # not beyond the quartiles
        (Quartiles(1.02, 1.08, 1.1), None, None),
    ],
)
def test_the_guard_fails_on_what_got_slower(ratio, limit, status, monkeypatch, capsys, repository):
    measured = []

    def measure(tree, threads, options):
        measured.append((tree, threads))
        return {f"W2 ({threads})": ratio}

    monkeypatch.setattr(compare, "measure", measure)
    guard = [] if limit is None else ["--fail-slower", limit]
    monkeypatch.setattr("sys.argv", ["compare", str(repository), "--threads", "1,2", *guard])
    if status is None:
        compare.main()
    else:
        with pytest.raises(SystemExit) as stopped:
            compare.main()
        assert stopped.value.code == status
    assert measured == [(repository, 1), (repository, 2)]
    said = capsys.readouterr().out.splitlines()[-1]
    slower = (
        f"W2 (1) {ratio.median:.3f}, W2 (2) {ratio.median:.3f}" if ratio.lower > 1 else "nothing"
    )
    assert said == f"Slower beyond the quartiles (threads in brackets): {slower}"


def test_clean_removes_the_worktree(repository, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(compare, "measure", lambda tree, threads, options: {})
    for options, there in ([], True), (["--clean"], False):
        monkeypatch.setattr("sys.argv", ["compare", "HEAD", *options])
        compare.main()
        assert any(compare.cache_folder().iterdir()) == there
