"""What a benchmark of clients compares, and the table of its rows."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.common.interleave import Timings


class Aim(NamedTuple):
    """How many times as long as ours a peer is to take."""

    ours: str
    peer: str
    factor: float


class Errors(NamedTuple):
    """Of values and of gradients, each the worst of its tensors, relative in the norm."""

    values: float
    gradients: float = 0.0


@dataclass(frozen=True)
class Prepared:
    """Candidates that have been checked, by name; ours come first and begin with FastCNF.

    Args:
        calls: What is timed; one that returns a float has timed itself.
        evaluations: Of the velocity, forward and, where a solve of its own goes back, backward.
        errors: Against a fine solution.
    """

    calls: dict[str, Callable[[], object]]
    evaluations: dict[str, tuple[int, int]]
    errors: dict[str, Errors]


class Comparison(ABC):
    """One row: a flow of FastCNF and of its peers.

    Attributes:
        name: Of the row.
        peer: As ``--peers`` names it.
        mode: ``"train"`` or ``"inference"``.
        shape: The flow in words.
        aims: To be printed beside what was measured.
        quick: Whether it is measured where no peer is named.
    """

    name: str
    peer: str
    mode: str
    shape: str
    aims: tuple[Aim, ...] = ()
    quick: bool = False

    @abstractmethod
    def prepare(self, dtype: torch.dtype, clock: str) -> Prepared:
        """Build the candidates; raise AssertionError unless all compute the same flow."""


def worst_error(found: Sequence[Tensor], true: Sequence[Tensor]) -> float:
    """The largest error of a tensor relative to its norm."""
    pairs = zip(found, true, strict=True)
    return max(((got - wanted).norm() / wanted.norm()).item() for got, wanted in pairs)


def check(who: str, errors: Errors, bound: Errors) -> None:
    """Raise AssertionError where an error is beyond its bound, or is no number."""
    for what, error, largest in zip(Errors._fields, errors, bound, strict=True):
        assert error <= largest, f"{who}: {what} are off by {error:.1e}, expected {largest:.0e}"


_HEAD = ("flow", "threads", "ours", "peer", "peer / ours", "aim", "evaluations", "errors")


def lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of Markdown: each peer over each of ours in each row."""
    if not rows:
        return []
    table = [f"| {' | '.join(_HEAD)} |", "|---" * len(_HEAD) + "|"]
    for row in rows:
        timings = Timings(row["seconds"])
        aims = {(ours, peer): factor for ours, peer, factor in row["aims"]}
        mine = [name for name in row["seconds"] if name.startswith("FastCNF")]
        for name in mine:
            for peer in (other for other in row["seconds"] if other not in mine):
                aim = aims.get((name, peer))
                cells = (
                    row["workload"],
                    row["threads"],
                    f"{name}, {timings.time(name).as_time()}",
                    f"{peer}, {timings.time(peer).as_time()}",
                    timings.ratio(peer, name).as_ratio(),
                    "" if aim is None else f"{aim:g}x",
                    "; ".join(_evaluations(*row["evaluations"][who]) for who in (name, peer)),
                    "; ".join(_errors(*row["errors"][who]) for who in (name, peer)),
                )
                table.append(f"| {' | '.join(map(str, cells))} |")
    return [
        *table,
        "",
        "Ratios: medians of the rounds' own, quartiles in brackets. Evaluations of the velocity, "
        "ours; the peer's: forward + those of an adjoint's solve backward. Errors, ours; the "
        "peer's: of values, of gradients, relative to a fine solution in float64, or to the same "
        "fixed steps in float64.",
        "",
    ]


def _evaluations(forward: int, backward: int) -> str:
    return f"{forward} + {backward}" if backward else str(forward)


def _errors(values: float, gradients: float) -> str:
    return ", ".join(f"{error:.0e}" for error in (values, gradients) if error)
