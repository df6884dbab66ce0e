"""The bars of README.md: ``python -m benchmarks.clients.speed_figure``.

How many times longer a training step takes with each peer than with FastCNF, from saved runs: the
median of the rounds' own ratios, quartiles as whiskers.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.common.environment import ROOT
from benchmarks.common.interleave import Quartiles, Timings

RESULTS = ROOT / "benchmarks" / "results"
FIGURE = ROOT / "docs" / "figures" / "speed.png"
#: On the axis.
TIMES = (1, 2, 5, 10, 20, 50, 100)
#: Each peer: its label and colour.
PEERS = {
    "odeint_adjoint": ("FFJORD's scheme, torchdiffeq odeint_adjoint", "#7a9e9f"),
    "odeint": ("FFJORD's scheme, torchdiffeq odeint", "#4f6d7a"),
    "diffrax": ("JAX, diffrax", "#dd6e42"),
    "zuko": ("zuko, its own adaptive solver", "#c0a062"),
}


class Group(NamedTuple):
    """The bars of one flow.

    Args:
        label: Below them.
        bars: Of each peer, the file, the workload and the candidate it is compared with.
    """

    label: str
    bars: dict[str, tuple[str, str, str]]


def _ffjord(flow: str) -> dict[str, tuple[str, str, str]]:
    file = "clients-1-thread.json"
    dopri5 = (file, f"{flow}, dopri5", "FastCNF dopri5")
    return {
        "odeint_adjoint": dopri5,
        "odeint": dopri5,
        "diffrax": (file, f"{flow}, tsit5", "FastCNF tsit5"),
    }


def _zuko(dim: int) -> dict[str, tuple[str, str, str]]:
    return {"zuko": ("zuko-1-thread.json", f"zuko D={dim}", "FastCNF rk4")}


GROUPS = (
    Group("2-D toy\n64-64-64", _ffjord("toy")),
    Group("43-D tabular\n430-430", _ffjord("tabular")),
    Group("64-D VAE\n512-512", _ffjord("VAE")),
    Group("zuko\nD = 2", _zuko(2)),
    Group("zuko\nD = 16", _zuko(16)),
)


def ratio(file: str, workload: str, ours: str, peer: str) -> Quartiles:
    """How many times longer than ``ours`` a training step of the peer takes in a saved run."""
    rows: list[dict[str, Any]] = json.loads((RESULTS / file).read_text())["rows"]
    for row in rows:
        if row["workload"] == workload and row["mode"] == "train" and peer in row["seconds"]:
            return Timings(row["seconds"]).ratio(peer, ours)
    raise ValueError(f"{file}: has no training row of {workload!r} with {peer!r}")


def draw(path: Path) -> None:
    """Write the figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    place, ticks, seen = 0.0, [], set()
    for group in GROUPS:
        began = place
        for peer, where in group.bars.items():
            label, colour = PEERS[peer]
            low, middle, high = ratio(*where, peer)
            whiskers = [[middle - low], [high - middle]]
            first = None if peer in seen else label
            bar = {"bottom": 1, "yerr": whiskers, "color": colour, "ecolor": "0.3", "label": first}
            axes.bar(place, middle - 1, 0.85, **bar)
            axes.text(place, 1.05 * high, f"{middle:.1f}", ha="center", va="bottom", fontsize=9)
            seen.add(peer)
            place += 1
        ticks.append(((began + place - 1) / 2, group.label))
        place += 0.7
    axes.axhline(1, color="black", linewidth=1)
    axes.set_yscale("log")
    axes.set_ylim(0.9, 110)
    axes.set_yticks(TIMES, map(str, TIMES))
    axes.minorticks_off()
    axes.set_xticks(*zip(*ticks, strict=True))
    axes.set_ylabel("time of a training step,\nmvae_fast = 1")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry of ``python -m benchmarks.clients.speed_figure``."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.clients.speed_figure", description=__doc__
    )
    parser.add_argument("--out", type=Path, default=FIGURE, help="the figure")
    draw(parser.parse_args(arguments).out)


if __name__ == "__main__":
    main()
