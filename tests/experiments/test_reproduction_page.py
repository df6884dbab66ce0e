"""docs/reproduction.md shows what the commands wrote into docs/results."""

import json
from pathlib import Path

import pytest

from mvae_fast.experiments.report import Entry, Report

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "reproduction.md").read_text()
RESULTS = sorted((DOCS / "results").glob("*.json"))


def report(path):
    saved = json.loads(path.read_text())
    entries = [Entry(**{**e, "values": tuple(e["values"])}) for e in saved["entries"]]
    return Report(saved["title"], entries, saved["notes"], digits=saved["digits"])


def tables(text):
    return {line for line in text.splitlines() if line.startswith("| ") and "---" not in line}


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_tables_are_those_of_the_seeds(path):
    markdown = report(path).markdown()
    assert path.with_suffix(".md").read_text() == markdown
    assert tables(markdown) <= tables(PAGE)


def test_every_number_with_a_spread_has_its_seeds():
    known = set().union(*(tables(report(path).markdown()) for path in RESULTS))
    assert {line for line in tables(PAGE) if " ± " in line} <= known


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_results_are_of_three_seeds_and_of_no_machine_in_particular(path):
    saved = json.loads(path.read_text())
    assert {len(e["values"]) for e in saved["entries"] if e["source"] != "published"} == {3}
    assert not any(word.startswith("/") for word in saved["command"])
