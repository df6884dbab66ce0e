import numpy as np
import pytest
import torch
from matplotlib import image

from mvae_fast.cli import main
from mvae_fast.experiments.commands.sample import condition
from mvae_fast.vae import build_mvae, load_mvae, save_mvae


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    modalities = {
        "image": {"type": "mlp", "shape": [8, 8], "hidden": 8},
        "photo": {"type": "mlp", "shape": [3, 8, 8], "hidden": 8},
        "label": {"type": "label", "num_classes": 10, "hidden": 8},
    }
    path = tmp_path_factory.mktemp("model") / "model.pt"
    save_mvae(build_mvae({"latent_dim": 4, "modalities": modalities}), path)
    return path


def sample(checkpoint, out, *argv):
    return main(["sample", str(checkpoint), "--out", str(out), *argv])


def test_samples_are_written_and_drawn(checkpoint, tmp_path):
    assert sample(checkpoint, tmp_path, "--n", "12", "--given", "label=3") == 0
    drawn = dict(np.load(tmp_path / "samples.npz"))
    assert drawn["image"].shape == (12, 8, 8) and drawn["label"].shape == (12,)
    assert drawn["label"].dtype == np.int64
    assert image.imread(tmp_path / "image.png").shape[0] > 300
    red, green, blue, _ = image.imread(tmp_path / "photo.png").T
    assert not np.array_equal(red, green) and not np.array_equal(green, blue)
    assert sample(checkpoint, tmp_path, "--n", "12") == 0
    assert not np.array_equal(np.load(tmp_path / "samples.npz")["image"], drawn["image"])


@pytest.mark.parametrize("n", [1, 5, 7])
def test_any_number_of_samples_is_drawn(checkpoint, tmp_path, n):
    assert sample(checkpoint, tmp_path, "--n", str(n)) == 0
    assert np.load(tmp_path / "samples.npz")["image"].shape == (n, 8, 8)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f8", "u1", "i8", "?"])
def test_an_image_of_any_type_may_be_given(checkpoint, tmp_path, dtype):
    row = np.eye(8).astype(dtype)
    np.save(tmp_path / "row.npy", row)
    given = f"image={tmp_path / 'row.npy'}"
    assert sample(checkpoint, tmp_path, "--n", "2", "--given", given) == 0
    assert np.load(tmp_path / "samples.npz")["label"].shape == (2,)
    _, data = condition(given, load_mvae(checkpoint))
    assert torch.equal(data, torch.eye(8)[None])


@pytest.mark.parametrize("value", ["3", "3.0", np.int32(3), np.uint8(3), np.float64(3)])
def test_a_whole_number_of_any_type_is_a_label(checkpoint, tmp_path, value):
    if not isinstance(value, str):
        np.save(tmp_path / "row.npy", value)
        value = tmp_path / "row.npy"
    images = []
    for given in (value, 3, 4):
        assert sample(checkpoint, tmp_path, "--n", "2", "--given", f"label={given}") == 0
        images.append(np.load(tmp_path / "samples.npz")["image"])
    assert np.array_equal(images[0], images[1]) and not np.array_equal(images[0], images[2])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--n", "0"], "--n must be positive"),
        (["--given", "sound=3"], "--given sound=3: expected MODALITY=VALUE with a modality of"),
        (["--given", "label=[1, x]"], "--given label=[1, x]: expected a number or a .npy file"),
        (["--given", "label=[1, [2, 3]]"], "expected a number or a .npy file"),
        (["--given", "label=[1"], "expected a number or a .npy file"),
        (["--given", "label="], "expected a number or a .npy file"),
        (["--given", "label=12"], "--given label=12: modality 'label': a Categorical likelihood"),
        (["--given", "label=3.5"], "a label must be a whole number, got 3.5"),
        (["--given", "label=.nan"], "a label must be a whole number, got nan"),
        (["--given", "label=1.0e+30"], "a label must be a whole number, got 1e+30"),
        (["--given", "label=true"], "a label must be a whole number, got True"),
        (["--given", "image=0.5"], "rows must have shape (8, 8), got ()"),
        (["--given", "image={folder}/none.npy"], "No such file or directory"),
        (["--given", "image={folder}/text.npy"], "text.npy: expected a number or a .npy file"),
        (["--given", "image={folder}/empty.npy"], "expected a number or a .npy file"),
        (["--given", "image={folder}/archive.npy"], "expected a number or a .npy file"),
        (["--given", "image={folder}/words.npy"], "expected a number or a .npy file"),
        (["--given", "image={folder}/bytes.npy"], "needs data in [0, 1], got values from 0 to 255"),
    ],
)
def test_mistakes_are_named(checkpoint, tmp_path, argv, message, capsys):
    (tmp_path / "text.npy").write_text("hello")
    (tmp_path / "empty.npy").touch()
    with (tmp_path / "archive.npy").open("wb") as file:
        np.savez(file, image=np.zeros((8, 8)))
    np.save(tmp_path / "words.npy", np.array(["a", "b"]))
    np.save(tmp_path / "bytes.npy", np.uint8([[0, 255] * 4] * 8))
    argv = [word.format(folder=tmp_path) for word in argv]
    assert sample(checkpoint, tmp_path / "out", *argv) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_modality_may_be_called_as_an_argument_of_numpy(tmp_path):
    model = build_mvae({"latent_dim": 4, "modalities": {"file": {"type": "mlp", "shape": [4, 4]}}})
    save_mvae(model, tmp_path / "model.pt")
    assert sample(tmp_path / "model.pt", tmp_path, "--n", "2") == 0
    assert np.load(tmp_path / "samples.npz")["file"].shape == (2, 4, 4)


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_file_is_no_folder_for_samples(checkpoint, below, capsys):
    assert sample(checkpoint, checkpoint / below) == 2
    assert f"--out must be a folder, got {checkpoint / below}: " in capsys.readouterr().err
