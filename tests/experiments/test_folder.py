from pathlib import Path

import pytest
import yaml

from mvae_fast.experiments.config import TrainConfig
from mvae_fast.experiments.folders.folder import (
    check_folder,
    discard,
    mark,
    open_folder,
    read_recipe,
)


def config(out, **changes):
    return TrainConfig.load("digits", out=str(out), **changes)


def begun(out, *models):
    for name in models:
        mark(out / name)
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
        ("dataset: digits\nflows: {}", "is damaged, or not of a run: it lacks .*'epochs'"),
        (
            yaml.safe_dump({**TrainConfig.load("digits").recipe(), "flows": None}),
            "is damaged: flows must be dict",
        ),
        (
            yaml.safe_dump({**TrainConfig.load("digits").recipe(), "seed": "x"}),
            "is damaged: seed must be int, got 'x'",
        ),
        (
            yaml.safe_dump({**TrainConfig.load("digits").recipe(), "colour": 1}),
            r"is damaged, or of a newer version: it has \['colour'\]",
        ),
        ("[" * 1500, "is damaged: it is nested too deeply"),
    ],
)
def test_a_damaged_recipe_is_named(tmp_path, text, message):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=rf"config.yaml {message}"):
        open_folder(config(tmp_path, resume=True))
    assert (tmp_path / "config.yaml").read_text() == text


def test_a_model_that_is_being_removed_is_not_taken_for_finished(tmp_path, monkeypatch):
    begun(tmp_path, "mvae")
    unlink, removed = Path.unlink, []

    def killed(path, **options):
        if removed:
            raise SystemError("killed")
        removed.append(path.name)
        unlink(path, **options)

    with monkeypatch.context() as patch, pytest.raises(SystemError, match="killed"):
        patch.setattr(Path, "unlink", killed)
        discard(tmp_path / "mvae")
    assert removed == ["finished.json"]
    discard(tmp_path / "mvae")  # the mark is there until all else is gone
    assert not (tmp_path / "mvae").exists()


def snapshot(folder):
    return {
        path: None if path.is_dir() and not path.is_symlink() else path.lstat().st_mtime_ns
        for path in folder.rglob("*")
    }


FOREIGN = ["notes.txt", "csv/mine.csv", "tensorboard/version_0/photo.png", "best.ckpt.txt", "a/b"]


@pytest.mark.parametrize("inner", FOREIGN)
def test_what_no_run_has_written_is_not_removed(tmp_path, inner):
    open_folder(config(tmp_path))
    begun(tmp_path, "mvae")
    stranger = tmp_path / "mvae" / inner
    stranger.parent.mkdir(parents=True, exist_ok=True)
    stranger.write_text("mine")
    before = snapshot(tmp_path)
    named = inner if inner != "a/b" else "a"
    with pytest.raises(ValueError, match=f"mvae holds what no run has written: {named}"):
        open_folder(config(tmp_path, models=["mvae"], overwrite=True))
    assert snapshot(tmp_path) == before
    open_folder(config(tmp_path, models=["mvae"], resume=True))  # it removes nothing
    assert stranger.read_text() == "mine"


@pytest.mark.parametrize("way", ["overwrite", "resume", None])
@pytest.mark.parametrize("file", ["thesis.tex", "model.pt", "last.ckpt", "finished.json"])
def test_a_folder_that_is_called_like_a_model_is_left_alone(tmp_path, way, file):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / file).write_text("mine")
    before = snapshot(tmp_path)
    options = {way: True} if way else {}
    with pytest.raises(ValueError, match=f"thesis is not of a run and holds {file}"):
        open_folder(config(tmp_path, models=["thesis"], flows={"thesis": None}, **options))
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("way", ["overwrite", "resume"])
@pytest.mark.parametrize("inner", ["", "csv", "last.ckpt", "link"])
def test_links_are_not_followed(tmp_path, way, inner):
    elsewhere = tmp_path / "elsewhere"
    mark(elsewhere)
    (elsewhere / "last.ckpt").write_text("dear")
    out = tmp_path / "out"
    if inner:
        mark(out / "mvae")
    out.mkdir(exist_ok=True)
    (out / "mvae" / inner).symlink_to(elsewhere)
    run = config(out, models=["mvae"], **{way: True})
    with pytest.raises(ValueError, match=f"has written: {inner}" if inner else "and is a link"):
        open_folder(run)
    assert (elsewhere / "last.ckpt").read_text() == "dear" and (out / "mvae" / inner).is_symlink()


@pytest.mark.parametrize("way", ["overwrite", "resume", None])
def test_a_file_in_the_place_of_a_model_is_named(tmp_path, way):
    (tmp_path / "mvae").write_text("mine")
    with pytest.raises(ValueError, match="mvae must be the folder of a model, and is a file"):
        open_folder(config(tmp_path, **({way: True} if way else {})))
    assert (tmp_path / "mvae").read_text() == "mine"


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path):
    mark(tmp_path / "mvae")
    (tmp_path / "mvae" / "last.ckpt").mkdir()
    with pytest.raises(ValueError, match="holds what no run has written: last.ckpt"):
        open_folder(config(tmp_path, resume=True))


@pytest.mark.parametrize("name", ["table.csv", "table.json", "table.md", "samples.png"])
def test_results_of_somebody_else_are_not_overwritten(tmp_path, name):
    (tmp_path / name).write_text("mine")
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match=f"holds {name} and no config.yaml of a run"):
        check_folder(config(tmp_path))
    assert snapshot(tmp_path) == before


def test_settings_that_somebody_wrote_by_hand_are_not_overwritten(tmp_path):
    text = "# my notes\n" + yaml.safe_dump(config(tmp_path).recipe())
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="config.yaml has other settings and was not written by"):
        open_folder(config(tmp_path, lr=0.5))
    open_folder(config(tmp_path))
    assert path.read_text() == text


def test_an_unchanged_recipe_is_not_written_again(tmp_path):
    open_folder(config(tmp_path))
    path = tmp_path / "config.yaml"
    before = path.stat().st_mtime_ns
    open_folder(config(tmp_path, resume=True))
    assert path.stat().st_mtime_ns == before
    assert yaml.safe_load(path.read_text())["dataset"] == "digits"
