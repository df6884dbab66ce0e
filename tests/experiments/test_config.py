import pytest
import yaml

from mvae_fast.experiments.commands.train import parse
from mvae_fast.experiments.config import TrainConfig, configured, title
from mvae_fast.experiments.usage import UsageError


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


@pytest.mark.parametrize("dataset", ["mnist", "fashion_mnist", "kmnist", "emnist_letters"])
def test_mnist_like_sets_have_the_papers_full_setting(dataset):
    config = parse(["--dataset", dataset])
    assert (config.dataset, config.epochs, config.annealing) == (dataset, 60, 20)
    assert config.modalities["image"] == {
        "type": "mlp",
        "shape": [28, 28],
        "hidden": 512,
        "likelihood": "bernoulli",
        "weight": 1.0,
    }
    classes = 26 if dataset == "emnist_letters" else 10
    assert config.modalities["label"]["num_classes"] == classes
    assert config.selection == "validation" and config.flows["mvae_cnf"]["hidden"] == [256]


def test_annealing_is_a_third_of_the_epochs_unless_given():
    assert TrainConfig.load("digits", epochs=30).annealing == 10
    assert TrainConfig.load("digits", epochs=30, annealing_epochs=0).annealing == 0


def test_options_win_over_set_over_files_over_the_packaged_configuration(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"epochs": 7, "latent_dim": 9, "flows": {"mine": None}}))
    argv = ["--config", str(path), "--set", "latent_dim=10", "--set", "flows.mvae_cnf.T=0.5"]
    config = parse([*argv, "--latent-dim", "11", "--models", "mine", "mvae_cnf", "--resume"])
    assert (config.epochs, config.latent_dim, config.lr) == (7, 11, 1e-3)
    assert config.flows["mvae_cnf"]["T"] == 0.5 and config.flows["mvae_cnf"]["n_steps"] == 10
    assert config.model("mine")["flow"] is None
    assert config.resume


def test_a_file_may_name_the_data_set(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("dataset: mnist\nepochs: 3\n")
    config = parse(["--config", str(path)])
    assert (config.dataset, config.epochs, config.batch_size) == ("mnist", 3, 100)


def test_a_setting_may_name_the_data_set():
    config = parse(["--set", "dataset=shapes6", "--set", "epochs=3"])
    assert (config.dataset, config.epochs, len(config.modalities)) == ("shapes6", 3, 6)


def test_a_saved_recipe_is_a_configuration(tmp_path):
    config = parse(["--epochs", "3"])
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.recipe()))
    assert parse(["--config", str(path)]).recipe() == config.recipe()


def test_differences_are_told():
    config = TrainConfig.load("digits", lr=1e-2)
    saved = TrainConfig.load("digits", models=["mvae"], out="elsewhere", threads=2).recipe()
    assert config.differences(saved) == ["lr: 0.001 there, 0.01 here"]


def test_flows_of_models_that_only_one_has_may_differ():
    saved = TrainConfig.load("digits").recipe()
    flows = TrainConfig.load("digits").flows
    other = {**flows, "mvae_cnf": {**flows["mvae_cnf"], "T": 2.0}}
    assert TrainConfig.load("digits", models=["mvae"], flows=other).differences(saved) == []
    assert len(TrainConfig.load("digits", flows=other).differences(saved)) == 1


def test_an_older_recipe_had_the_defaults():
    saved = TrainConfig.load("digits").recipe()
    del saved["dataset_options"], saved["precision"]
    assert TrainConfig.load("digits").differences(saved) == []
    changed = TrainConfig.load("digits", precision="bf16-mixed").differences(saved)
    assert changed == ["precision: '32-true' there, 'bf16-mixed' here"]


def test_models_without_a_title_are_shown_as_they_are():
    assert (title("mvae_cnf"), title("mine")) == ("MVAE-CNF", "mine")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": ["vae"]}, r"models must be among .* got \['vae'\]"),
        ({"models": []}, "at least one model"),
        ({"models": ["mvae", "mvae"]}, "each once"),
        ({"epochs": 0}, "epochs must be positive, got 0"),
        ({"lr": float("nan")}, "lr must be positive"),
        ({"lr": float("inf")}, "lr must be finite"),
        ({"lr": None}, "lr must be float, got None"),
        ({"lr": "1e-3"}, "lr must be float, got '1e-3'"),
        ({"epochs": True}, "epochs must be int, got True"),
        ({"epochs": 3.0}, "epochs must be int, got 3.0"),
        ({"download": "no"}, "download must be bool, got 'no'"),
        ({"resume": 1}, "resume must be bool, got 1"),
        ({"overwrite": None}, "overwrite must be bool, got None"),
        ({"out": 3}, r"out must be str \| None, got 3"),
        ({"models": "mvae"}, r"models must be list\[str\], got 'mvae'"),
        ({"modalities": ["image"]}, r"modalities must be dict.*, got \['image'\]"),
        ({"modalities": {"image": 3}}, "modalities.image must be a mapping with a type, got 3"),
        ({"modalities": {"a/b": {"type": "mlp"}}}, "modalities: a name must be of .* got 'a/b'"),
        ({"flows": {"mvae": "cnf"}}, "flows.mvae must be null or a mapping with a type, got 'cnf'"),
        ({"flows": {"..": None}}, "flows: a name must be of letters, .* got '..'"),
        ({"models": [".."]}, "models: a name must be of letters, .* got '..'"),
        ({"seed": -1}, "seed must not be negative"),
        ({"seed": 2**64}, r"seed must not be negative and less than 2\*\*64"),
        ({"threads": 0}, "threads must be positive"),
        ({"annealing_epochs": -1}, "annealing_epochs must not be negative"),
        ({"paired_fraction": 0.0}, r"paired_fraction must be in \(0, 1\], got 0.0"),
        ({"selection": "train"}, "selection must be one of .* got 'train'"),
        ({"annealing_schedule": "cosine"}, "annealing_schedule must be one of"),
        ({"optimizer": "sgd"}, "optimizer must be one of"),
        ({"resume": True, "overwrite": True}, "resume and overwrite exclude each other"),
    ],
)
def test_bad_values_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig.load("digits", **change)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["epochs"], "--set epochs: expected key=value"),
        (["epoch=3"], r"--set epoch=3: expected key=value; did you mean epochs\?; keys: dataset, "),
        (["flows={"], "--set flows={"),
        (["epochs=abc"], "epochs must be int, got 'abc'"),
        (["batch_size=2.5"], "batch_size must be int, got 2.5"),
        (["models=mvae"], r"models must be list\[str\], got 'mvae'"),
        (["modalities=[1]"], r"modalities must be dict.*, got \[1\]"),
        (["dataset=shapes6"], "dataset must be 'digits' here, got 'shapes6'"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        configured("digits", settings=settings)


def test_numbers_may_be_written_as_in_python():
    """YAML 1.1 takes 1e-3 for a string."""
    assert configured("digits", settings=["lr=1e-3"])["lr"] == 1e-3


def test_nested_numbers_may_be_written_as_in_python(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("modalities: {label: {weight: 1e2}}\nflows: {mvae_cnf: {T: 1e-1}}")
    settings = ["modalities.image.weight=+2E-1", "flows.mvae_cnf.type=1e", "lr=.5e-3"]
    values = configured("digits", [path], settings)
    assert values["modalities"]["label"]["weight"] == 100.0
    assert values["modalities"]["image"]["weight"] == 0.2
    assert values["flows"]["mvae_cnf"]["T"] == 0.1
    assert values["flows"]["mvae_cnf"]["type"] == "1e" and values["lr"] == 5e-4


def test_files_are_merged_one_after_the_other(tmp_path):
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text("flows: {mvae_cnf: null}")
    two.write_text("flows: {mvae_cnf: {type: planar}}")
    assert configured("digits", [one])["flows"]["mvae_cnf"] is None
    assert configured("digits", [one, two])["flows"]["mvae_cnf"] == {"type": "planar"}


def test_a_misspelt_model_or_modality_is_named_with_those_there_are():
    for setting, told in [
        ("flows.mvae_cmf.T=1", "flows.mvae_cmf must .* others are .*'mvae_cnf'"),
        ("modalities.labels.weight=1", "modalities.labels must .* others are .*'label'"),
    ]:
        with pytest.raises(ValueError, match=told):
            TrainConfig(**configured("digits", settings=[setting]))


def test_bad_files_are_named(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("epoch: 3")
    with pytest.raises(ValueError, match=r"mine.yaml: unknown settings \['epoch'\]"):
        configured("digits", [path])
    path.write_text("1: 2\nepoch: 3")
    with pytest.raises(ValueError, match=r"mine.yaml: unknown settings \['1', 'epoch'\]"):
        configured("digits", [path])
    path.write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"--config .*mine.yaml: .*can't decode"):
        configured("digits", [path])
    path.write_text("3")
    with pytest.raises(ValueError, match="mine.yaml: expected a mapping"):
        configured("digits", [path])
    for name in ("cifar", "paper"):
        with pytest.raises(ValueError, match=f"there is no configuration {name!r} among"):
            configured(name)
    path.write_text("dataset: mnist")
    with pytest.raises(ValueError, match="dataset must be 'digits' here, got 'mnist'"):
        configured("digits", [path])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--epochs", "0"], "epochs must be positive"),
        (["--epochs", "many"], "epochs"),
        (["--epoch_count", "3"], "epoch_count"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--dataset", "cifar"], "no configuration 'cifar'"),
    ],
)
def test_bad_options_end_with_a_message(argv, message):
    with pytest.raises(UsageError, match=message):
        parse(argv)
