import csv
import json

import pytest

from mvae_fast.experiments.table1 import Table1


@pytest.fixture
def table():
    keys = ("nll/joint/image", "nll/joint/label", "elbo/joint", "elbo/image", "elbo/label")
    results = {
        model: {
            convention: {key: (start + i + 0.12344, 0.5) for i, key in enumerate(keys)}
            for convention, start in (("elbo", 10 * m), ("paper", 10 * m + 100))
        }
        for m, model in enumerate(("MVAE", "MVAE-CNF"), 1)
    }
    return Table1(["image", "label"], results, ["seed 0"], {"config": {"seed": 0}})


def test_rows_are_the_papers_columns(table):
    assert table.rows() == [
        [name, f"{10 + i}.1234", f"{20 + i}.1234", f"{110 + i}.1234", f"{120 + i}.1234"]
        for i, name in enumerate(["X1 BCE", "X2 BCE", "ELBO joint", "ELBO X1", "ELBO X2"])
    ]


def test_text_fits_a_terminal_and_names_the_conventions(table):
    text = table.text()
    assert max(map(len, text.splitlines()[:7])) <= 80
    assert "X1 = image, X2 = label" in text
    assert "not a bound" in text and "seed 0" in text
    assert text.splitlines()[2].split() == [
        "X1",
        "BCE",
        "10.1234",
        "20.1234",
        "110.1234",
        "120.1234",
    ]


def test_files_hold_the_same_numbers(table, tmp_path):
    paths = table.write(tmp_path)
    assert [path.name for path in paths] == ["table.csv", "table.json", "table.md"]
    with paths[0].open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20
    assert rows[0] == {
        "model": "MVAE",
        "convention": "elbo",
        "quantity": "X1 BCE",
        "value": "10.12344",
        "standard_error": "0.5",
    }
    saved = json.loads(paths[1].read_text())
    assert saved["config"] == {"seed": 0}
    assert saved["results"]["MVAE-CNF"]["paper"]["elbo/joint"] == [122.12344, 0.5]
    assert "| X2 BCE | 11.1234 | 21.1234 | 111.1234 | 121.1234 |" in paths[2].read_text()
