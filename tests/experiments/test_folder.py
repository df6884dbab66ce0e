import pytest
import yaml

from mvae_fast.experiments.config import TrainConfig
from mvae_fast.experiments.folder import discard, open_folder, read_recipe


def config(out, **changes):
    return TrainConfig.load("digits", out=str(out), **changes)


def begun(out, *models):
    for name in models:
        (out / name).mkdir()
        (out / name / "last.ckpt").write_text("weights")
        (out / name / "finished.json").write_text("{}")


def flows(**changes):
    packaged = TrainConfig.load("digits").flows
    return {**packaged, "mvae_cnf": {**packaged["mvae_cnf"], **changes}}


def test_the_recipe_is_written_whole(tmp_path):
    open_folder(config(tmp_path / "new"))
    assert read_recipe(tmp_path / "new" / "config.yaml") == config(tmp_path).recipe()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["config.yaml"]


def test_other_settings_are_refused_where_a_model_has_been_begun(tmp_path):
    open_folder(config(tmp_path))
    open_folder(config(tmp_path, lr=0.5, resume=True))  # nothing was done with the first ones
    begun(tmp_path, "mvae")
    with pytest.raises(ValueError, match="holds mvae of a run with other .*lr: 0.5 there, 0.1 h"):
        open_folder(config(tmp_path, lr=0.1, resume=True))
    assert read_recipe(tmp_path / "config.yaml")["lr"] == 0.5


def test_a_model_keeps_its_flow_whoever_opens_the_folder(tmp_path):
    """As table1 does: a run for each model, in one folder."""
    open_folder(config(tmp_path))
    begun(tmp_path, "mvae", "mvae_cnf")
    changed = flows(n_steps=1)
    open_folder(config(tmp_path, models=["mvae"], flows=changed, resume=True))
    assert read_recipe(tmp_path / "config.yaml")["flows"]["mvae_cnf"]["n_steps"] == 10
    with pytest.raises(ValueError, match="flows: .*'n_steps': 10.* there, .*'n_steps': 1.* here"):
        open_folder(config(tmp_path, models=["mvae_cnf"], flows=changed, resume=True))


def test_a_model_that_has_not_been_begun_may_have_any_flow(tmp_path):
    open_folder(config(tmp_path, models=["mvae"]))
    begun(tmp_path, "mvae")
    changed = {**flows(n_steps=1), "mine": None}
    open_folder(config(tmp_path, models=["mvae_cnf", "mine"], flows=changed, resume=True))
    saved = read_recipe(tmp_path / "config.yaml")["flows"]
    assert saved["mvae_cnf"]["n_steps"] == 1 and saved["mine"] is None


def test_nothing_is_lost_without_asking(tmp_path):
    open_folder(config(tmp_path))
    begun(tmp_path, "mvae", "mvae_cnf")
    with pytest.raises(ValueError, match="holds mvae, mvae_cnf of an earlier run: resume .* overw"):
        open_folder(config(tmp_path))
    assert (tmp_path / "mvae" / "last.ckpt").exists()
    open_folder(config(tmp_path, models=["mvae"], overwrite=True))
    assert not (tmp_path / "mvae").exists() and (tmp_path / "mvae_cnf").exists()
    # What stays must go with the recipe.
    with pytest.raises(ValueError, match="holds mvae_cnf of a run with other settings: lr"):
        open_folder(config(tmp_path, models=["mvae"], lr=0.5, overwrite=True))
    open_folder(config(tmp_path, lr=0.5, overwrite=True))
    assert not (tmp_path / "mvae_cnf").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is damaged: it is no mapping"),
        ("flows: {a: [", "is damaged: while parsing"),
        ("dataset: digits\nflows: {}", "is damaged: it lacks .*'epochs'"),
        (
            yaml.safe_dump({**TrainConfig.load("digits").recipe(), "flows": None}),
            "is damaged: flows is no mapping",
        ),
    ],
)
def test_a_damaged_recipe_is_named(tmp_path, text, message):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=rf"config.yaml {message}"):
        open_folder(config(tmp_path, resume=True))
    assert (tmp_path / "config.yaml").read_text() == text


def test_a_model_that_is_being_removed_is_not_taken_for_finished(tmp_path, monkeypatch):
    begun(tmp_path, "mvae")
    monkeypatch.setattr("shutil.rmtree", lambda path: None)  # killed before it did anything
    discard(tmp_path / "mvae")
    assert [path.name for path in (tmp_path / "mvae").iterdir()] == ["last.ckpt"]
    discard(tmp_path / "none")


def test_an_unchanged_recipe_is_not_written_again(tmp_path):
    open_folder(config(tmp_path))
    path = tmp_path / "config.yaml"
    before = path.stat().st_mtime_ns
    open_folder(config(tmp_path, resume=True))
    assert path.stat().st_mtime_ns == before
    assert yaml.safe_load(path.read_text())["dataset"] == "digits"
