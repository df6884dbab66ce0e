"""What ``pytest benchmarks/`` runs for its options, and what it says of peers that are missing."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from benchmarks import test_cpu
from benchmarks.common import peers as module
from benchmarks.common.candidates import CANDIDATES, OURS
from benchmarks.common.peers import LONG, PEERS, candidates_of, select_peers, versions, why_missing
from benchmarks.common.workloads import select
from benchmarks.compare import ROOT

CLIENTS, OWN_NETS = "benchmarks/test_clients.py", "benchmarks/clients/test_own_nets.py"


def collected(*options):
    command = [sys.executable, "-m", "pytest", "-q", "benchmarks", "--collect-only", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done, [line.split("::")[0] for line in done.stdout.splitlines() if "::" in line]


def test_workloads_run_those_only():
    done, files = collected("--workloads", "W1")
    assert done.returncode == 0, done.stderr
    assert set(files) <= {"benchmarks/test_cpu.py", "benchmarks/test_gpu.py"}
    lines = [line for line in done.stdout.splitlines() if "test_cpu" in line]
    assert lines and all("W1" in line for line in lines)


def test_peers_with_own_nets_run_where_named():
    _, files = collected("--peers", "hypernet,torchdiffeq", "--workloads", "W6")
    assert set(files) == {"benchmarks/test_cpu.py", OWN_NETS}
    _, files = collected()
    assert "benchmarks/test_epoch.py" in files and OWN_NETS not in files


def test_clients_are_all_measured_where_their_peer_is_named():
    named, files = collected("--peers", "diffrax,torchdiffeq")
    lines = [line for line in named.stdout.splitlines() if line.startswith(CLIENTS)]
    assert len(lines) == 9 and not any("flow_matching" in line for line in lines)
    by_default, _ = collected()
    (line,) = (line for line in by_default.stdout.splitlines() if line.startswith(CLIENTS))
    assert "toy-dopri5" in line
    assert CLIENTS not in collected("--workloads", "W1", "--peers", "torchdiffeq")[1]


def test_an_unknown_peer_is_refused():
    done, _ = collected("--peers", "jax,tensorflow")
    assert done.returncode == 4
    assert "--peers: got 'tensorflow', expected all or some of torchdiffeq,compile," in done.stderr


def test_select():
    assert select_peers(None) == ()
    assert select_peers("all") == tuple(PEERS)
    assert select_peers("zuko,jax,zuko") == ("zuko", "jax")


@pytest.mark.parametrize("peer", PEERS)
def test_candidates_are_known(peer):
    (workload,) = select(["W3"])
    assert set(PEERS[peer]) <= set(CANDIDATES)
    assert set(candidates_of(peer, workload, "train")) == set(PEERS[peer]) - {LONG}
    assert not {"odeint_adjoint", "compile exact"} & set(candidates_of(peer, workload, "inference"))


def chosen(**options):
    config = SimpleNamespace(getoption={"full": False, "workloads": None, **options}.get)
    return list(test_cpu.cases(config))


@pytest.fixture
def nothing_installed(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)


@pytest.fixture
def all_installed(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: object())


def test_cases_of_peers(all_installed):
    train, long, inference, long_inference = chosen(peers="all", workloads="W2")
    ours = (OURS, f"{OURS} hutchinson", f"{OURS} bf16")
    assert train.names[:3] == inference.names[:3] == ours
    assert set(train.names[3:]) == {name for names in PEERS.values() for name in names} - {LONG}
    assert set(inference.names[3:]) == {"odeint", "jax vjp", "jax jvp", "jax closed form"}
    assert long.names == long_inference.names == (OURS, LONG)
    assert (train.mode, long.mode, inference.mode) == ("train", "train", "inference")
    assert min(case.settle for case in (train, long, inference)) > 0


def test_without_peers_all_is_as_before(all_installed):
    by_default = chosen(peers=None)
    assert {name for case in by_default for name in case.names} == set(test_cpu.TORCHDIFFEQ)
    full = {name for case in chosen(peers=None, full=True) for name in case.names}
    assert full == {*test_cpu.TORCHDIFFEQ, *PEERS["compile"]}


def test_what_is_not_installed_is_left_out_with_a_reason(nothing_installed):
    assert why_missing("jax") == "jax is not installed; remedy: pip install -e '.[peers]'"
    assert why_missing("torchdiffeq") is None and why_missing("hypernet") is None
    names = {name for case in chosen(peers="all", workloads="W2") for name in case.names}
    assert "odeint" in names and not names & set(PEERS["jax"])
    assert chosen(peers="jax,zuko", workloads="W2") == []
    assert versions(PEERS) == {}
