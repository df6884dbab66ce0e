import pytest
import yaml

from mvae_fast.experiments.config import TrainConfig
from mvae_fast.experiments.options import parse


def test_the_papers_settings_are_the_default():
    config = parse([])
    assert (config.epochs, config.annealing, config.latent_dim) == (40, 13, 128)
    assert config.models == ["mvae", "mvae_cnf"]
    assert {name: m["weight"] for name, m in config.modalities.items()} == {
        "image": 1.0,
        "label": 50.0,
    }
    flow = config.model("mvae_cnf")["flow"]
    assert (flow["hidden"], flow["layer_type"], flow["nonlinearity"]) == (
        [256],
        "squash",
        "softplus",
    )
    assert (flow["solver"], flow["trace"]) == ("euler", "exact")
    assert config.model("mvae")["flow"] is None
    assert str(config.folder) == "runs/digits"


def test_annealing_is_a_third_of_the_epochs_unless_given():
    assert TrainConfig.load("digits", epochs=30).annealing == 10
    assert TrainConfig.load("digits", epochs=30, annealing_epochs=0).annealing == 0


def test_options_win_over_files_which_win_over_the_packaged_configuration(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"epochs": 7, "latent_dim": 9, "n_steps": 3}))
    config = parse(["--config", str(path), "--latent-dim", "11", "--T", "0.5", "--resume"])
    assert (config.epochs, config.latent_dim, config.lr) == (7, 11, 1e-3)
    flow = config.model("mvae_cnf")["flow"]
    assert (flow["T"], flow["n_steps"]) == (0.5, 3)
    assert config.resume


def test_a_saved_recipe_is_a_configuration(tmp_path):
    config = parse(["--epochs", "3"])
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.recipe()))
    assert parse(["--config", str(path)]).recipe() == config.recipe()


def test_differences_are_told():
    config = TrainConfig.load("digits", lr=1e-2)
    saved = TrainConfig.load("digits", models=["mvae"], out="elsewhere", threads=2).recipe()
    assert config.differences(saved) == ["lr: 0.001 there, 0.01 here"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": ["vae"]}, r"models must be among .* got \['vae'\]"),
        ({"models": []}, "at least one model"),
        ({"models": ["mvae", "mvae"]}, "each once"),
        ({"epochs": 0}, "epochs must be positive, got 0"),
        ({"lr": float("nan")}, "lr must be positive"),
        ({"T": -1.0}, "T must be positive"),
        ({"threads": 0}, "threads must be positive"),
        ({"annealing_epochs": -1}, "annealing_epochs must not be negative"),
    ],
)
def test_bad_values_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig.load("digits", **change)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--epochs", "0"], "epochs must be positive"),
        (["--epochs", "many"], "epochs"),
        (["--epoch_count", "3"], "epoch_count"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_bad_options_end_with_a_message(argv, message, capsys):
    with pytest.raises(SystemExit) as exit:
        parse(argv)
    assert exit.value.code == 2
    assert message in capsys.readouterr().err
