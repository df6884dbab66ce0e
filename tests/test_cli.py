import csv
import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from mvae_fast import __version__
from mvae_fast.cli import main
from mvae_fast.data import DATASETS, load_dataset
from mvae_fast.experiments.commands import COMMANDS, module
from mvae_fast.experiments.commands.datasets import FACTS
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
    """What a command says that ends with exit code 2: one line, and no screen of usage."""
    assert main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "usage" not in line and line.startswith("mvae-fast")
    return line


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
    blocked = ["lightning", "shtab", "sklearn", "matplotlib", "torchmetrics", "yaml"]
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
    [(["--version"], 0, f"mvae_fast {__version__}"), (["trian"], 2, "unknown 'trian'")],
)
def test_the_package_is_the_command(argv, status, said):
    command = [sys.executable, "-m", "mvae_fast", *argv]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == status
    assert said in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ([], "mvae-fast: the following arguments are required: COMMAND"),
        (["trian"], "mvae-fast: COMMAND: unknown 'trian'; did you mean train?; known: info, "),
        (["info", "--jsn"], "mvae-fast info: --jsn: unknown; did you mean --json?"),
        (["info", "--verbose"], "--verbose: unknown"),
        (["bench", "--step", "3"], "mvae-fast bench: --step: unknown; did you mean --steps"),
        (["bench", "--steps", "0"], "--steps: expected a positive integer, got '0'"),
        (["bench", "--seconds", "long"], "--seconds: invalid float value: 'long'"),
        (["datasets", "mnits"], "no configuration 'mnits'"),
        (["datasets", "mnits"], "did you mean mnist"),
        (["completion", "fsh"], "shell: unknown 'fsh'; did you mean"),
        (["train", "--epoch_count", "3"], "--epoch_count: unknown; did you mean --epochs?"),
        (["train", "--epochs", "many"], "--epochs: expected int, got 'many'"),
        (["train", "--epochs", "0"], "epochs must be positive, got 0"),
        (["train", "--epochs"], "--epochs: expected one argument"),
        (["train", "--lr", "[1"], "--lr: while parsing"),
        (["train", "--threads", "two"], "--threads: expected int | None, got 'two'"),
        (["train", "--optimizer", "adan"], "--optimizer: unknown 'adan'; did you mean adam"),
        (["train", "--dataset", "mnits"], "no configuration 'mnits'"),
        (["train", "--models", "mvae_cfn"], "did you mean mvae_cnf"),
        (["train", "--set", "epoch=3"], "--set epoch=3: expected key=value; did you mean epochs?"),
        (["train", "--set", "epochs"], "--set epochs: expected key=value"),
        (["train", "--set", "selection=tests"], "selection must be one of ('validation', 'test')"),
        (["train", "--config", "none.yaml"], "--config none.yaml: [Errno 2] No such file"),
        (["train", "--config", "{folder}/keys.yaml"], "unknown settings ['epoch']; did you mean"),
        (["train", "--config", "{folder}/list.yaml"], "expected a mapping of settings"),
        (["train", "--config", "{folder}/broken.yaml"], "broken.yaml: while parsing"),
        (["train", "--set", "flows.mvae_cnf.nsteps=3"], "did you mean n_steps"),
        (["train", "--set", "modalities.image.hiden=3"], "did you mean hidden"),
        (["train", "--print-config", "--epochs", "0"], "epochs must be positive, got 0"),
        (["evaluate"], "the following arguments are required: CHECKPOINT"),
        (["evaluate", "none.pt"], "checkpoint none.pt: no such file"),
        (["evaluate", "none.pt", "--dataset", "mnits"], "--dataset: unknown 'mnits'; did you mean"),
        (["sample", "none.pt", "--n", "0"], "--n must be positive, got 0"),
        (["sample", "none.pt", "--n", "x"], "--n: invalid int value: 'x'"),
        (["reproduce", "tabel1"], "experiment: unknown 'tabel1'; did you mean table1"),
        (["reproduce", "table1", "--jobs", "0"], "jobs must be positive, got 0"),
        (["reproduce", "table1", "--set", "seed=3"], "seed has an option of its own, --seeds"),
        (["reproduce", "decisions", "--decisions", "luck"], "--decisions: unknown 'luck'"),
        (["reproduce", "table1", "--print-config", "--set", "epoch=3"], "did you mean epochs"),
    ],
)
def test_a_mistake_is_told_in_one_line_that_names_it(argv, told, tmp_path, monkeypatch, capsys):
    (tmp_path / "keys.yaml").write_text("epoch: 3")
    (tmp_path / "list.yaml").write_text("[1, 2]")
    (tmp_path / "broken.yaml").write_text("epochs: [1")
    monkeypatch.chdir(tmp_path)
    assert told in refused([word.format(folder=tmp_path) for word in argv], capsys)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("argv", "own"),
    [
        (["train", "--epochs", "7", "--set", "flows.mvae_cnf.T=0.5"], set()),
        (["train", "--dataset", "shapes6", "--data-dir", "here"], set()),
        (["reproduce", "table1", "--set", "epochs=7"], {"models", "seed", "out"}),
    ],
)
def test_a_printed_configuration_is_one(argv, own, tmp_path, capsys):
    assert main([*argv, "--print-config"]) == 0
    printed = capsys.readouterr().out
    path = tmp_path / "printed.yaml"
    path.write_text(printed)
    settings = yaml.safe_load(printed)
    assert settings["epochs"] == (60 if "shapes6" in argv else 7)
    assert own.isdisjoint(settings) and not {"resume", "overwrite", "quiet"} & set(settings)
    again = [*argv[:1], *(["table1"] if own else []), "--config", str(path), "--print-config"]
    assert main(again) == 0
    assert capsys.readouterr().out == printed


def test_a_configuration_for_each_data_set(capsys):
    argv = ["reproduce", "table1", "--dataset", "digits", "mnist", "--print-config"]
    assert main(argv) == 0
    documents = list(yaml.safe_load_all(capsys.readouterr().out))
    assert [settings["dataset"] for settings in documents] == ["digits", "mnist"]
    assert main(["reproduce", "table4", "--print-config"]) == 0
    documents = list(yaml.safe_load_all(capsys.readouterr().out))
    assert [settings["dataset"] for settings in documents] == ["photos_gray", "photos_edge"]


def test_datasets_says_what_there_is(tmp_path, capsys):
    assert main(["datasets", "--json", "--data-dir", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == list(DATASETS)
    for facts in found.values():
        assert {"modalities", "rows", "licence", "download"} <= set(facts)
    for name in ("digits", "shapes6"):  # those that need no files
        splits = load_dataset(name)
        assert list(found[name]["rows"].values()) == [len(part) for part in splits]
        assert list(found[name]["modalities"]) == list(splits.train.arrays)
    mnist = found["mnist"]
    assert mnist["modalities"] == {"image": "28x28", "label": "10 classes"}
    assert mnist["folder"] == str(tmp_path / "mnist")
    with pytest.raises(FileNotFoundError, match=mnist["files"][0]):
        load_dataset("mnist", tmp_path)


def test_datasets_named_are_printed_alone(capsys):
    assert main(["datasets", "celeba19", "digits"]) == 0
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if line[0] != " "] == ["celeba19", "digits"]
    assert "rows        train 17,880, validation 1,987, test 19,962" in printed


def test_rows_are_those_of_the_page():
    page = (Path(__file__).parents[1] / "docs" / "data.md").read_text()
    for name, facts in FACTS.items():
        (row,) = [line for line in page.splitlines() if f"`{name}`" in line.split(" | ")[0]]
        numbers = [int(number.replace(",", "")) for number in row.split(" | ")[2].split()[:5:2]]
        assert tuple(numbers) == facts.rows, name


def test_bench_measures_both_in_turns(capsys):
    small = ["bench", "--dim", "2", "--hidden", "8", "--batch", "4", "--steps", "3"]
    few = [*small, "--rounds", "5", "--seconds", "0", "--threads", "1"]
    assert main(few) == 0
    printed = capsys.readouterr().out
    for word in ("machine", "engine", "torchdiffeq", "ratio", "5 rounds", "1 threads"):
        assert word in printed
    assert main([*few, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {name: len(samples) for name, samples in found["seconds"].items()} == {
        "FastCNF": 5,
        "torchdiffeq": 5,
    }
    error = float(re.search(r"differ by (\S+) at most", found["agreement"]).group(1))
    assert error < 1e-4  # of float32, over three steps


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_commands_options_and_choices(shell, capsys):
    pytest.importorskip("shtab", reason="shtab is in the extra [train]")
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in (*COMMANDS, "--print-config", "adamax", "fashion_mnist", "table1"):
        assert word in script


@pytest.mark.slow
def test_bash_completes(tmp_path, capsys):
    pytest.importorskip("shtab", reason="shtab is in the extra [train]")
    assert main(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    ask = """
    source ./script
    COMP_WORDS=({words}); COMP_CWORD={last}
    $(complete -p mvae-fast | sed 's/.*-F \\([^ ]*\\).*/\\1/')
    echo "${{COMPREPLY[@]}}"
    """
    for words, last, expected in (
        ("mvae-fast tr", 1, "train"),
        ("mvae-fast train --opt", 2, "--optimizer"),
        ("mvae-fast train --optimizer ada", 3, "adam adamax"),
        ("mvae-fast reproduce --dataset fash", 3, "fashion_mnist"),
    ):
        code = ask.format(words=words, last=last)
        done = subprocess.run(["bash", "-c", code], cwd=tmp_path, capture_output=True, text=True)
        assert done.stdout.strip() == expected, (words, done.stdout, done.stderr)


def test_interruption_ends_a_command(monkeypatch, capsys):
    def interrupt(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr("mvae_fast.experiments.commands.info.main", interrupt)
    assert main(["info"]) == 130
    assert capsys.readouterr().err == "\nInterrupted.\n"


@pytest.mark.slow
def test_quiet_prints_results_only(small, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["train", *small, "--models", "mvae", "--out", str(out), "--quiet"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("Table 1 on the 360 held-out rows of digits")
    assert printed.err == "" and "Written" not in printed.out and "epochs, " not in printed.out
    model = str(out / "mvae" / "model.pt")
    folder = ["--out", str(tmp_path / "written"), "--quiet"]
    assert main(["evaluate", model, *folder]) == 0
    assert "Written" not in capsys.readouterr().out
    assert main(["sample", model, "--n", "2", *folder]) == 0
    assert capsys.readouterr() == ("", "")
    assert {path.name for path in (tmp_path / "written").iterdir()} == {
        *("evaluation.csv", "evaluation.json", "evaluation.md", "samples.npz", "image.png")
    }


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
def test_help_ends_with_examples_that_parse(help_of, command):
    epilog = help_of(command).partition("examples:\n")[2]
    lines = [line.strip() for line in epilog.splitlines() if line.strip()]
    assert lines
    for line in lines:
        words = shlex.split(line.partition(">")[0])
        assert words[:2] == ["mvae-fast", command]
        module(command).parser().parse_args(words[2:])


@pytest.mark.parametrize(
    ("command", "choices"),
    [
        ("train", "--optimizer {adam,adamax}"),
        ("train", "--selection {validation,test}"),
        ("train", "--annealing-schedule {linear,jump}"),
        ("train", "--dataset {digits,mnist,"),
        ("evaluate", "--dataset {digits,mnist,"),
        ("reproduce", "--decisions {one-step,code,"),
        ("completion", "{bash,zsh}"),
    ],
)
def test_help_shows_choices(help_of, command, choices):
    assert choices in " ".join(help_of(command).split())


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
