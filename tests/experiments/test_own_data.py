"""From a file that the project has never seen to every answer, by the command line alone."""

import csv

import numpy as np
import pytest
import torch
import yaml

from mvae_fast.cli import main
from mvae_fast.experiments.commands.sample import condition
from mvae_fast.experiments.commands.train import parse
from mvae_fast.vae import build_mvae, load_mvae, save_mvae

ROWS = 120


def people(folder):
    """A table of mixed types with gaps."""
    rng = np.random.default_rng(1)
    latent = rng.normal(size=(ROWS, 2))
    columns = {
        "name": [f"person {i}" for i in range(ROWS)],
        "blood pressure": np.round(120 + 15 * latent[:, 0], 1),
        "eyes": np.where(latent[:, 1] > 0, "blue", "brown"),
        "visits": rng.poisson(np.exp(3 + latent[:, 0] / 2)),
        "smokes": (latent[:, 0] > 0).astype(int),
        "gene_0": np.round(latent.sum(1), 3),
        "gene_1": np.round(latent[:, 0] - latent[:, 1], 3),
    }
    path = folder / "people.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in range(ROWS):
            cells = [values[row] for values in columns.values()]
            gone = rng.random(5) < 0.15
            cells[1:5] = ["" if g else c for g, c in zip(gone, cells[1:5], strict=False)]
            writer.writerow(cells[:5] + (["", ""] if gone[4] else cells[5:]))
    return path


def shapes(folder):
    """A folder of images, a folder a label."""
    images = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(2)
    for name, rows in (("wide", slice(4, 6)), ("high", slice(1, 9))):
        (folder / "shapes" / name).mkdir(parents=True)
        for i in range(ROWS // 4):
            pixels = rng.integers(0, 60, (10, 10), dtype=np.uint8)
            pixels[rows, 3:7] = 220
            images.fromarray(pixels).save(folder / "shapes" / name / f"{name}{i}.png")
    return folder / "shapes"


def assays(folder):
    """Counts of two assays, one of which some cells lack."""
    rng = np.random.default_rng(3)
    latent = rng.normal(size=(ROWS, 2))
    rna = rng.poisson(np.exp(latent @ rng.normal(size=(2, 12))))
    protein = rng.poisson(np.exp(2 + latent @ rng.normal(size=(2, 4))))
    here = rng.random(ROWS) < 0.7
    np.savez(folder / "assays.npz", rna=rna, protein=protein, protein_mask=here)
    return folder / "assays.npz"


SMALL = ["--epochs", "1", "--latent-dim", "3", "--batch-size", "50", "--quiet"]
SAMPLES = [
    "--set",
    "elbo_samples=2",
    "--set",
    "iwae_samples=2",
    "--set",
    "flows.mvae_cnf.n_steps=2",
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "suffix", "of", "given"),
    [
        (people, ".csv", "eyes", "gene"),
        (shapes, ".npz", "label", "image"),
        (assays, ".npz", "protein", "rna"),
    ],
)
def test_from_a_file_to_every_answer(make, suffix, of, given, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = str(make(tmp_path).relative_to(tmp_path))
    assert main(["init", "--data", data, "--out", "my.yaml"]) == 0
    found = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line]
    assert {of, given} <= set(found)
    described = yaml.safe_load((tmp_path / "my.yaml").read_text())
    assert {of, given} <= set(described["modalities"])
    tiny = [f"--set=modalities.{name}.hidden=8" for name in described["modalities"]]
    train = ["train", "--config", "my.yaml", *tiny, *SMALL, *SAMPLES, "--out", "run"]
    assert main(train) == 0
    trained = capsys.readouterr()
    assert trained.err == "" and "MVAE-CNF" in trained.out
    assert main([*train, "--resume"]) == 0  # the same data have the same settings
    capsys.readouterr()
    model = "run/mvae_cnf/model.pt"

    # Of the run's own test rows; the numbers are those of the table.
    assert main(["evaluate", model]) == 0
    evaluated = capsys.readouterr().out
    rows = [line.split() for line in trained.out.splitlines() if line.startswith(("ELBO", "-log"))]
    for row in rows:
        assert " ".join(row[:-2]) in " ".join(evaluated.split())
        assert row[-1] in evaluated
    assert main(["evaluate", "run/mvae/model.pt", "--data", data, "--quiet"]) == 0

    asked = [model, "--data", data, "--quiet"]
    assert main(["impute", *asked, "--samples", "3", "--out", f"filled{suffix}"]) == 0
    assert main(["embed", *asked, "--out", "latents.csv"]) == 0
    assert main(["embed", *asked, "--out", "latents.npz"]) == 0
    assert main(["score", *asked, "--samples", "3", "--out", "scores.csv"]) == 0
    condition = ["--of", of, "--given", given, "--out", "given.npz"]
    assert main(["score", *asked, "--samples", "3", *condition]) == 0
    assert main(["sample", model, "--n", "2", "--quiet"]) == 0

    n = len((tmp_path / "latents.csv").read_text().splitlines()) - 1
    with np.load("latents.npz") as latents, np.load("given.npz") as scores:
        assert latents["z"].shape == (n, 3) and np.isfinite(latents["z"]).all()
        assert scores["log_prob"].shape == (n,)
    with open("scores.csv") as file:
        assert all(-1e4 < float(row["log_prob"]) < 1e3 for row in csv.DictReader(file))
    # A file without gaps is one of the same kind, and nothing is left to fill.
    capsys.readouterr()
    again = ["impute", model, "--data", f"filled{suffix}", "--out", f"again{suffix}"]
    assert main([*again, "--samples", "3"]) == 0
    told = capsys.readouterr().out.splitlines()[0]
    assert all(part.endswith(" 0") for part in told.partition(": ")[2].split(", "))


@pytest.fixture
def trained(tmp_path):
    """A model of `people` that has not been trained, and its folder."""
    people(tmp_path)
    config = parse(["--data", str(tmp_path / "people.csv"), "--latent-dim", "2"])
    modalities = {
        name: {**spec, "hidden": 4, **({"standardize": {"mean": 1, "std": 2}} if "standardize" in
               spec else {})}
        for name, spec in config.modalities.items()
    }  # fmt: skip
    save_mvae(build_mvae({"latent_dim": 2, "modalities": modalities}).eval(), tmp_path / "model.pt")
    return tmp_path


def filled_rows(folder):
    with (folder / "filled.csv").open() as file:
        return list(csv.DictReader(file))


def test_imputing_fills_gaps_and_nothing_else(trained):
    argv = ["impute", str(trained / "model.pt"), "--data", str(trained / "people.csv")]
    assert main([*argv, "--out", str(trained / "filled.csv"), "--samples", "2", "--quiet"]) == 0
    with (trained / "people.csv").open() as file:
        before = list(csv.DictReader(file))
    gaps = 0
    for old, new in zip(before, filled_rows(trained), strict=True):
        for name, cell in old.items():
            word = {"eyes": "probability", "smokes": "probability"}.get(name, "std")
            if cell:
                assert new[name] == cell and not new.get(f"{name}_{word}")
            else:
                assert new[name] and float(new[f"{name}_{word}"]) > 0
                gaps += 1
    assert gaps > 50


def test_the_same_seed_gives_the_same_file(trained, capsys):
    argv = ["impute", str(trained / "model.pt"), "--data", str(trained / "people.csv"), "--quiet"]
    contents = []
    for seed, name in (("0", "a"), ("0", "b"), ("1", "c")):
        out = trained / f"{name}.csv"
        assert main([*argv, "--samples", "2", "--seed", seed, "--out", str(out)]) == 0
        contents.append(out.read_bytes())
    assert contents[0] == contents[1] != contents[2]
    assert capsys.readouterr() == ("", "")


def test_a_file_may_lack_a_modality(trained):
    (trained / "few.csv").write_text("eyes\nblue\nbrown\n")
    argv = ["impute", str(trained / "model.pt"), "--data", str(trained / "few.csv"), "--quiet"]
    assert main([*argv, "--out", str(trained / "filled.csv")]) == 0
    rows = filled_rows(trained)
    assert [row["eyes"] for row in rows] == ["blue", "brown"]
    assert all(row["gene_1"] and row["gene_1_std"] and row["visits"] for row in rows)


def test_settings_print_and_read_again(trained, capsys, monkeypatch):
    monkeypatch.chdir(trained)
    assert main(["init", "--data", "people.csv"]) == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["epochs"] == 300  # as few rows as 120 have few steps
    assert "# eyes " in printed and "# name is left out: 120 different texts" in printed
    (trained / "my.yaml").write_text(printed)
    assert main(["train", "--config", "my.yaml", "--print-config"]) == 0
    by_file = capsys.readouterr().out
    assert main(["train", "--data", "people.csv", "--print-config"]) == 0
    assert capsys.readouterr().out == by_file
    # What a file leaves out of the data is not trained.
    described = yaml.safe_load(printed)
    del described["modalities"]["eyes"]
    (trained / "less.yaml").write_text(yaml.safe_dump(described))
    config = parse(["--config", "less.yaml", "--split", "{test: 0.5}"])
    assert "eyes" not in config.modalities and config.split == {"test": 0.5}
    assert config.folder.name == "people"


def test_a_class_is_given_by_its_name(trained):
    model = load_mvae(trained / "model.pt")
    assert condition("eyes=brown", model) == ("eyes", torch.tensor([1]))


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["init"], "the following arguments are required: --data"),
        (["init", "--data", "none.csv"], "none.csv: no such file or folder"),
        (["init", "--data", "model.pt"], "got the suffix '.pt', expected .npz, .csv, .parquet or"),
        (["init", "--data", "word.csv"], "column 'age', row 3: got 'old', expected a number"),
        (["init", "--data", "ragged.csv"], "ragged.csv: row 2: got 1 cells, expected 2"),
        (["init", "--data", "people.csv", "--out", "a.txt"], "--out: got a.txt, expected a file"),
        (["init", "--data", "people.csv", "--out", "my.yaml"], "--overwrite replaces it"),
        (["init", "--data", "people.csv", "--split", "{tset: 0.1}"], "split: got 'tset'"),
        (["init", "--data", "people.csv", "--split", "half"], "--split: expected dict[str"),
        (["init", "--data", "people.csv", "--split", "{column: eyes}"], "column 'eyes', row"),
        (["train", "--data", "none.csv"], "none.csv: no such file"),
        (["train", "--data", "people.csv", "--dataset", "mnist"], "expected one"),
        (["train", "--dataset", "digits", "--set", "data=people.csv"], "expected one"),
        (["train", "--config", "my.yaml"], "no column or array for the modality 'eye'; it has"),
        (["train", "--config", "my.yaml"], "did you mean eyes?"),
        (["train", "--config", "count.yaml"], "column 'gene_0', row"),
        (["train", "--data", "people.csv", "--set", "modalities.eyes.hiden=3"], "did you mean"),
        (["evaluate", "model.pt", "--data", "few.csv"], "no column or array for the modality"),
        (["evaluate", "model.pt", "--data", "few.csv", "--dataset", "mnist"], "expected one of"),
        (["impute", "model.pt", "--data", "people.csv"], "arguments are required: --out"),
        (["impute", "model.pt", "--data", "people.csv", "--out", "a.txt"], "--out: got a.txt"),
        (["impute", "model.pt", "--data", "people.csv", "--out", "few.csv"], "--overwrite repla"),
        (["impute", "model.pt", "--data", "people.csv", "--out", "people.csv", "--overwrite"],
         "which is read, expected another file"),
        (["impute", "model.pt", "--data", "other.csv", "--out", "a.csv"],
         "column 'eyes', row 2: got the class 'bleu', expected one of blue, brown"),
        (["impute", "model.pt", "--data", "other.csv", "--out", "a.csv"], "did you mean blue?"),
        (["impute", "model.pt", "--data", "ragged.csv", "--out", "a.csv"], "row 2: got 1 cells"),
        (["impute", "model.pt", "--data", "none.csv", "--out", "a.csv"], "none.csv: no such"),
        (["impute", "model.pt", "--data", "foreign.csv", "--out", "a.csv"],
         "got ['x', 'y'], expected some of the model's modalities"),
        (["impute", "model.pt", "--data", "few.csv", "--out", "a.csv", "--samples", "0"],
         "--samples: got 0"),
        (["embed", "none.pt", "--data", "few.csv", "--out", "a.csv"], "none.pt: no such file"),
        (["embed", "model.pt", "--data", "few.csv", "--out", "a.csv", "--seed", "-1"], "--seed"),
        (["score", "model.pt", "--data", "few.csv", "--out", "a.csv", "--of", "eye"],
         "of: got 'eye', expected modalities of"),
        (["score", "model.pt", "--data", "few.csv", "--out", "a.csv", "--of", "eyes", "--given",
          "eyes"], "of: got ['eyes'], expected modalities that are not in given"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_one_line_that_names_it(argv, told, trained, monkeypatch, capsys):
    texts = {
        "word.csv": "age\n1.5\n2\nold\n4\n",
        "ragged.csv": "eyes,smokes\nblue,1\nbrown\n",
        "few.csv": "eyes\nblue\nbrown\n",
        "other.csv": "eyes\nblue\nbleu\n",
        "foreign.csv": "x,y\n1,2\n",
        "my.yaml": "data: people.csv\nmodalities: {eye: {type: label, num_classes: 2}}\n",
        "count.yaml": "data: people.csv\nmodalities:\n"
        "  gene: {type: mlp, shape: [2], likelihood: poisson}\n",
    }
    for name, text in texts.items():
        (trained / name).write_text(text)
    monkeypatch.chdir(trained)
    before = {path: path.read_bytes() for path in trained.iterdir()}
    assert main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line and line.startswith(f"mvae-fast {argv[0]}: ")
    assert {path: path.read_bytes() for path in trained.iterdir()} == before
