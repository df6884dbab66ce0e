import csv
import json
import math

import pytest

from mvae_fast.experiments.report import PUBLISHED, Entry, Report


@pytest.mark.parametrize("values", [(1.0,), (1.0, math.nan), (math.nan, math.nan), (1.0, math.inf)])
def test_a_spread_that_there_is_not_is_left_out(values):
    entry = Entry("mnist", "ELBO joint", "elbo", "MVAE", values)
    assert math.isnan(entry.spread)
    assert "±" not in entry.text(2)


@pytest.fixture
def report():
    entries = [
        Entry("mnist", "ELBO joint", PUBLISHED, "MVAE", (100.9352,)),
        Entry("mnist", "ELBO X1", PUBLISHED, "MVAE", (99.5,)),
        Entry("mnist", "ELBO joint", "elbo", "MVAE", (101.0, 103.0)),
        Entry("mnist", "ELBO X1", "elbo", "MVAE", (98.0, 98.0)),
        Entry("mnist", "ELBO joint", "elbo", "MVAE-CNF", (97.0,)),
        Entry("digits", "ELBO joint", "elbo", "MVAE", (30.0,)),
    ]
    return Report("Table", entries, ["a note"], {"seed": 3})


def test_sources_of_a_quantity_stand_together(report):
    assert report.tables()["mnist"] == [
        ["", "", "MVAE", "MVAE-CNF"],
        ["ELBO joint", PUBLISHED, "100.9352", ""],
        ["ELBO joint", "elbo", "102.00 ± 1.41", "97.00"],
        ["ELBO X1", PUBLISHED, "99.5", ""],
        ["ELBO X1", "elbo", "98.00 ± 0.00", ""],
    ]
    assert list(report.tables()) == ["mnist", "digits"]


def test_spread_is_that_of_a_sample():
    assert Entry("", "", "", "", (1.0, 2.0, 3.0)).spread == 1.0
    assert math.isnan(Entry("", "", "", "", (1.0,)).spread)


def test_columns_of_the_text_are_aligned(report):
    lines = report.text().splitlines()
    table = lines[lines.index("") + 1 : lines.index("", 2)]
    ends = [line.index("100.9352") + 8 for line in table if "100.9352" in line]
    assert ends == [line.index("102.00 ± 1.41") + 13 for line in table if "102.00" in line]
    assert lines[-1] == "a note"


def test_files_hold_the_same_numbers(report, tmp_path):
    paths = report.write(tmp_path / "new", "table")
    assert [path.name for path in paths] == ["table.csv", "table.json", "table.md"]
    with paths[0].open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert rows[2] == {
        "section": "mnist",
        "quantity": "ELBO joint",
        "source": "elbo",
        "column": "MVAE",
        "mean": "102.0",
        "sd": "1.4142135623730951",
        "seeds": "2",
    }
    saved = json.loads(paths[1].read_text())
    assert saved["seed"] == 3 and saved["entries"][2]["values"] == [101.0, 103.0]
    assert "| ELBO joint | elbo | 102.00 ± 1.41 | 97.00 |" in paths[2].read_text()


def test_a_bar_in_a_name_is_no_border_in_markdown():
    entry = Entry("mnist", "-log p X1 | rest", "iwae", "MVAE", (90.0,))
    assert r"| -log p X1 \| rest | iwae | 90.00 |" in Report("", [entry]).markdown()
