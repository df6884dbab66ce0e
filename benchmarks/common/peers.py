"""What ``--peers`` can name, and whether it is installed."""

from collections.abc import Iterable
from importlib.metadata import version
from importlib.util import find_spec

from benchmarks.common.workloads import Workload

#: Candidates of each peer on W1 to W7. Zuko's CNF and torchdiffeq's example have nets of their own:
#: `benchmarks.peers.own_nets`. Torchdiffeq, diffrax and flow_matching are also in
#: `benchmarks.clients`.
PEERS: dict[str, tuple[str, ...]] = {
    "torchdiffeq": ("odeint", "odeint_adjoint"),
    "compile": ("compile exact", "compile hutchinson"),
    "jax": ("jax vjp", "jax jvp", "jax closed form", "jax exact"),
    "diffrax": (),
    "flow_matching": (),
    "zuko": (),
    "hypernet": (),
}
_PACKAGES = ("jax", "diffrax", "flow_matching", "zuko")
#: D times the work of the others: in a table of its own, with few rounds.
LONG = "jax exact"


def select_peers(text: str | None) -> tuple[str, ...]:
    """The peers of a comma list, or of ``"all"``; none of None.

    Example:
        >>> select_peers("jax,zuko")
        ('jax', 'zuko')
    """
    if text is None:
        return ()
    names = tuple(PEERS) if text == "all" else tuple(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in PEERS:
            raise ValueError(f"--peers: got {name!r}, expected all or some of {','.join(PEERS)}")
    return names


def why_missing(peer: str) -> str | None:
    """None where a peer can be measured, else the reason and the remedy."""
    if peer in _PACKAGES and find_spec(peer) is None:
        return f"{peer} is not installed; remedy: pip install -e '.[peers]'"
    return None


def versions(peers: Iterable[str]) -> dict[str, str]:
    """Of those that are packages of their own and installed."""
    return {p: version(p) for p in peers if p in _PACKAGES and why_missing(p) is None}


def candidates_of(peer: str, workload: Workload, mode: str) -> tuple[str, ...]:
    """Its candidates in a row of this mode, without `LONG`."""
    left_out = {LONG}
    if mode == "inference":
        # Without gradients the adjoint is plain odeint; compiling once more takes minutes.
        left_out |= {"odeint_adjoint", *PEERS["compile"]}
    if len(workload.hidden) > 2:
        left_out |= {"jax closed form"}  # there is none
    return tuple(name for name in PEERS[peer] if name not in left_out)
