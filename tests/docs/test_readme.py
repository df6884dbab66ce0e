"""README.md is short, and its numbers are those of the saved records."""

import json
import re

from benchmarks.clients.speed_figure import GROUPS, PEERS, ratio
from tests.docs.pages import DOCS, ROOT

TEXT = (ROOT / "README.md").read_text()


def test_length():
    assert len(TEXT.split()) <= 550


def test_the_two_commands_are_targets():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for command in ("demo", "test", "docs"):
        assert f"make {command}" in TEXT and command in targets


def test_speed():
    (claimed,) = re.findall(r"FFJORD's scheme on torchdiffeq takes ([\d.]+) times", TEXT)
    vae = next(group for group in GROUPS if "VAE" in group.label)
    assert claimed == f"{ratio(*vae.bars['odeint'], 'odeint').median:.1f}"


def test_every_bar_has_a_record():
    bars = [ratio(*where, peer) for group in GROUPS for peer, where in group.bars.items()]
    assert len(bars) >= len(PEERS)
    assert all(bar.lower <= bar.median <= bar.upper for bar in bars)


def test_cost_of_the_exact_trace():
    (claimed,) = re.findall(r"one noisy estimate takes ([\d.]+) times", TEXT)
    estimate = ratio("jax-1-thread.json", "W2", "FastCNF", "FastCNF hutchinson")
    assert claimed == f"{estimate.median:.1f}"


def test_images_from_labels():
    claimed = tuple(re.search(r"from (0\.\d\d) to (0\.\d\d)", TEXT).groups())
    entries = json.loads((DOCS / "results" / "table2_mnist.json").read_text())["entries"]
    means = {
        entry["column"]: sum(entry["values"]) / len(entry["values"])
        for entry in entries
        if (entry["row"], entry["source"]) == ("10000 samples", "ours")
    }
    assert claimed == (f"{means['MVAE']:.2f}", f"{means['MVAE-CNF']:.2f}")


def test_links_exist():
    for target in re.findall(r"\]\(([^):]+)\)", TEXT):
        assert (ROOT / target).exists(), target
