import csv
import re
import signal
import subprocess
import sys

import pytest
import torch
import yaml

from mvae_fast import __version__
from mvae_fast.cli import COMMANDS, main
from mvae_fast.experiments.commands.reproduce import EXPERIMENTS
from mvae_fast.experiments.module import MVAEModule
from mvae_fast.vae import load_mvae


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.yaml"
    nets = {
        "image": {"type": "mlp", "shape": [8, 8], "hidden": 16},
        "label": {"type": "label", "num_classes": 10, "hidden": 16, "weight": 50.0},
    }
    flows = {"mvae_cnf": {"type": "cnf", "hidden": [16], "n_steps": 2}}
    path.write_text(
        yaml.safe_dump({"epochs": 1, "latent_dim": 6, "modalities": nets, "flows": flows})
    )
    return ["--config", str(path), "--batch-size", "200"]


@pytest.mark.slow
def test_train_end_to_end(small, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["train", *small, "--out", str(out), "--seed", "3"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    for expected in ("1257 train, 180 validation, 360 test rows; seed 3", "ELBO X2", "not a bound"):
        assert expected in printed.out
    written = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert {
        *("config.yaml", "samples.png", "table.csv", "table.json", "table.md"),
        *(f"{m}/{f}" for m in ("mvae", "mvae_cnf") for f in ("best.ckpt", "last.ckpt", "model.pt")),
    } <= written
    with (out / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["source"] for row in rows} == {"paper", "elbo", "iwae"}
    assert len(rows) == 30 and all(0 < float(row["mean"]) < 1000 for row in rows)
    assert load_mvae(out / "mvae_cnf" / "model.pt").flow.n_steps == 2
    assert (
        torch.load(out / "mvae" / "best.ckpt", weights_only=True)["hyper_parameters"]["seed"] == 3
    )

    # Finished: resuming only evaluates, and prints the same table.
    assert main(["train", *small, "--out", str(out), "--seed", "3", "--resume"]) == 0
    again = capsys.readouterr().out
    numbers = ("ELBO", "X", "-log p")
    assert [line for line in again.splitlines() if line.startswith(numbers)] == [
        line for line in printed.out.splitlines() if line.startswith(numbers)
    ]
    assert main(["train", *small, "--out", str(out), "--seed", "4", "--resume"]) == 2
    assert "seed: 3 there, 4 here" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["train"], ["reproduce", "table1", "--seeds", "0"]])
@pytest.mark.parametrize("below", ["", "deeper"])
@pytest.mark.slow
def test_a_file_in_the_place_of_a_folder_is_named(command, below, tmp_path, capsys):
    (tmp_path / "file").touch()
    out = tmp_path / "file" / below
    assert main([*command, "--out", str(out)]) == 2
    assert f"out must be a folder, got {out}" in capsys.readouterr().err


@pytest.mark.slow
def test_an_interrupted_run_says_how_to_go_on(small, tmp_path, capsys, monkeypatch):
    def interrupt(self, batch, batch_idx):
        raise KeyboardInterrupt

    monkeypatch.setattr(MVAEModule, "training_step", interrupt)
    handler = signal.getsignal(signal.SIGINT)
    assert main(["train", *small, "--out", str(tmp_path / "run")]) == 130
    assert f"--resume --out {tmp_path / 'run'}" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is handler


def refused(argv, capsys):
    """What a command says that ends with exit code 2, be it by argparse or not."""
    try:
        code = main(argv)
    except SystemExit as exit:
        code = exit.code
    assert code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize("name", ["..", ".", "../thesis", "a/b", "/tmp", "~", "a b", "", "a\n", 3])
@pytest.mark.parametrize("way", ["--overwrite", "--resume"])
@pytest.mark.slow
def test_a_model_is_no_path(name, way, tmp_path, capsys):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "text.tex").write_text("mine")
    settings = tmp_path / "theirs.yaml"
    settings.write_text(yaml.safe_dump({"models": [name], "flows": {name: None}}))
    argv = ["train", "--config", str(settings), "--out", str(tmp_path / "out"), way]
    told = refused(argv, capsys)
    assert "models" in told or "flows" in told
    assert (tmp_path / "thesis" / "text.tex").exists() and not (tmp_path / "out").exists()


def test_a_settings_file_replaces_nothing(tmp_path, capsys):
    settings = tmp_path / "theirs.yaml"
    settings.write_text(yaml.safe_dump({"overwrite": True}))
    told = "overwrite is no setting of a file; use --overwrite"
    assert told in refused(["train", "--config", str(settings)], capsys)
    argv = ["reproduce", "table1", "--out", str(tmp_path / "out"), "--config", str(settings)]
    assert told in refused(argv, capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_overwrite_spares_what_a_run_has_not_written(small, tmp_path, capsys):
    out = tmp_path / "run"
    train = ["train", *small, "--models", "mvae", "--out", str(out)]
    assert main(train) == 0
    notes = out / "mvae" / "csv" / "version_0" / "notes.txt"
    notes.write_text("mine")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    told = refused([*train, "--overwrite"], capsys)
    assert "what no run has written: csv/version_0/notes.txt" in told
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    notes.unlink()
    weights = (out / "mvae" / "last.ckpt").stat().st_mtime_ns
    assert main([*train, "--overwrite"]) == 0
    assert (out / "mvae" / "last.ckpt").stat().st_mtime_ns > weights
    assert not (out / "mvae" / "csv" / "version_1").exists()


@pytest.mark.parametrize("command", [["train"], ["reproduce", "table1", "--seeds", "0"]])
@pytest.mark.slow
def test_a_full_disk_stops_a_run_with_one_line(command, small, tmp_path, capsys, monkeypatch):
    def full(path, content, *, previous=None):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("mvae_fast.experiments.folders.resuming.write_saved", full)
    argv = [*command, *small[:2], "--set", "batch_size=200", "--out", str(tmp_path / "run")]
    assert main(argv) == 1
    told = capsys.readouterr().err.strip()
    assert "No space left on device: " in told and "best.ckpt" in told and "\n" not in told
    assert "resume" in told or "The same command goes on" in told


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--set", "precision=transformer-engine"], "precision must be one that is there: "),
        (["--seed", str(2**70)], "seed must not be negative and less than 2**64, got 1180591"),
        (["--set", "lr="], "lr must be float, got None"),
        (["--set", "modalities.label.num_classes=9"], "needs data in 0..8, got values from"),
        (["--set", "modalities.training={type: mlp}"], "got ['image', 'label', 'training']"),
    ],
)
def test_what_cannot_be_is_told_before_any_work(argv, told, tmp_path, capsys):
    assert told in refused(["train", *argv, "--out", str(tmp_path / "out")], capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_info_needs_the_core_only(tmp_path):
    """In an interpreter that lacks every optional dependency."""
    blocked = ["lightning", "jsonargparse", "sklearn", "matplotlib", "torchmetrics", "yaml"]
    script = f"""
import sys
sys.modules.update(dict.fromkeys({blocked!r}))
from mvae_fast.cli import main
assert main(["info"]) == 0
sys.exit(main(["train"]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert __version__ in done.stdout and "reference" in done.stdout
    assert done.returncode == 1
    assert "pip install 'mvae_fast[train]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argv", "status", "said"),
    [(["--version"], 0, f"mvae_fast {__version__}"), (["trian"], 2, "invalid choice: 'trian'")],
)
def test_the_package_is_the_command(argv, status, said):
    command = [sys.executable, "-m", "mvae_fast", *argv]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == status
    assert said in done.stdout + done.stderr


def test_unknown_commands_and_options_are_refused(capsys):
    for argv in ([], ["trian"], ["info", "--verbose"], ["train", "--epoch_count", "3"]):
        with pytest.raises(SystemExit) as exit:
            main(argv)
        assert exit.value.code == 2
        assert "error" in capsys.readouterr().err


@pytest.fixture
def help_of(capsys):
    def printed(*command):
        with pytest.raises(SystemExit) as exit:
            main([*command, "--help"])
        assert exit.value.code == 0
        return capsys.readouterr().out

    return printed


def test_help_lists_the_commands(help_of):
    printed = help_of()
    assert all(command in printed for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_no_python_objects(help_of, command):
    assert not re.search(r"<\w+ |0x[0-9a-f]{6}", help_of(command))


def test_help_of_train_shows_what_each_option_is(help_of):
    printed = " ".join(help_of("train").split())
    for option, default in {
        "--latent-dim": "128",  # of a configuration
        "--dataset-options": "{}",  # those that no configuration names
        "--paired-fraction": "1.0",
        "--elbo-samples": "16",
        "--iwae-samples": "64",
        "--n-random-subsets": "0",
        "--precision": "32-true",
    }.items():
        shown = re.search(rf"{option} [A-Z_]+ .*?default: (.*?)\)", printed)
        assert shown.group(1) == default, option


def test_help_of_reproduce_has_a_line_for_each_experiment(help_of):
    lines = [line.split() for line in help_of("reproduce").splitlines()]
    for name, (_, _, what) in EXPERIMENTS.items():
        assert [name, *what.split()] in lines
