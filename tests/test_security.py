"""What SECURITY.md says of the code, checked in the code."""

import ast
import gzip
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from mvae_fast.data import sources
from mvae_fast.data.mirflickr import files as mirflickr
from mvae_fast.data.mnist import files
from mvae_fast.data.sources import Source
from mvae_fast.vae import build_mvae, load_mvae

PACKAGE = Path(__file__).parents[1] / "mvae_fast"


def calls(name):
    """Every call of a function in the package: where, and its keywords as they are written."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == name:
                keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
                yield path.relative_to(PACKAGE).as_posix(), node, keywords


@pytest.mark.parametrize(
    ("function", "keyword", "value"),
    [("torch.load", "weights_only", "True"), ("np.load", "allow_pickle", "False")],
)
def test_no_file_is_unpickled(function, keyword, value):
    found = list(calls(function))
    assert found
    assert not [path for path, _, keywords in found if keywords.get(keyword) != value]


def test_nothing_else_runs_what_it_reads():
    for name in ("pickle.load", "pickle.loads", "eval", "exec", "joblib.load", "torch.jit.load"):
        assert not list(calls(name)), name
    # _Loader is a SafeLoader.
    for path, node, _ in calls("yaml.load"):
        assert path == "experiments/folders/files.py" and ast.unparse(node.args[1]) == "_Loader"
    loader = (PACKAGE / "experiments" / "folders" / "files.py").read_text()
    assert "class _Loader(yaml.SafeLoader):" in loader


def test_every_download_comes_by_https_and_has_a_checksum():
    found = [value for value in vars(files).values() if isinstance(value, Source) and value.url]
    assert len(found) == 4
    for source in found:
        packed = source.files if source.archive is None else (source.archive,)
        assert set(packed) <= set(source.delivered), source.name
        assert source.url.startswith("https:")
        sums = [*source.delivered.values(), *source.content.values()]
        weak = {text.partition(":")[0] for text in sums}
        assert weak == ({"md5"} if source.name in ("kmnist", "emnist_letters") else {"sha256"})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (1, r"is too long: its sizes \[1, 28, 28\] need 800"),
        (2**32 - 1, "expected at most 2684354"),
    ],
)
def test_of_a_gz_file_no_more_is_unpacked_than_its_header_says(tmp_path, rows, message):
    zeros, path = bytes(2**20), tmp_path / "images.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (rows, 28, 28)))
        for _ in range(100):
            file.write(zeros)
    tracemalloc.start()
    with pytest.raises(ValueError, match=message):
        files.parse_idx(files.read_idx(path, 3), path, 3)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_lists_and_arrays_have_limits(tmp_path, monkeypatch):
    path = tmp_path / "list.gz"
    path.write_bytes(gzip.compress(b"12345"))
    assert sources.read_content(path, 5) == b"12345"
    with pytest.raises(ValueError, match=r"list.gz holds more than 4 bytes"):
        sources.read_content(path, 4)
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros(1000))
    assert mirflickr.load_npz(tmp_path / "x.npz", ["x"])[0].shape == (1000,)
    monkeypatch.setattr(mirflickr, "LARGEST", 8000)
    with pytest.raises(ValueError, match="it unpacks to 8128 bytes, expected at most 8000"):
        mirflickr.load_npz(tmp_path / "x.npz", ["x"])


def test_an_archive_that_would_fill_the_disk_is_refused(tmp_path, monkeypatch):
    source = next(s for s in vars(files).values() if isinstance(s, Source) and s.archive)
    archive = tmp_path / "gzip.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in source.files:
            packed.writestr(f"gzip/{name}.gz", bytes(10**6))
    monkeypatch.setattr(sources, "_retrieve", lambda *_: archive)
    with pytest.raises(ValueError, match="unpacks to 1000000 bytes, more than the archive has"):
        sources.find_files(source, tmp_path / "data", download=True)


CONFIG = {"latent_dim": 2, "modalities": {"x": {"type": "mlp", "shape": [4]}}}


def saved(path, weights=lambda x: x, **how):
    model = build_mvae(CONFIG)
    state_dict = {name: weights(x) for name, x in model.state_dict().items()}
    torch.save({"config": model.config, "state_dict": state_dict}, path, **how)
    return path


def test_a_model_whose_members_unpack_to_more_is_not_unpacked(tmp_path):
    path, bomb = saved(tmp_path / "model.pt", torch.zeros_like), tmp_path / "bomb.pt"
    load_mvae(path)
    with zipfile.ZipFile(path) as good, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as bad:
        for member in good.infolist():
            bad.writestr(member.filename, good.read(member))
    with pytest.raises(ValueError, match="is not a checkpoint") as error:
        load_mvae(bomb)
    assert "unpack to more than the file has" in str(error.value.__cause__)


def test_a_model_of_an_older_form_is_refused(tmp_path):
    path = saved(tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match="is not a checkpoint"):
        load_mvae(path)


def test_weights_that_stand_for_more_than_they_are_make_no_model(tmp_path):
    path = saved(tmp_path / "model.pt", lambda x: torch.zeros(()).to(x).expand(x.shape))
    with pytest.raises(ValueError, match=r"it has \d+ numbers for the \d+ parameters"):
        load_mvae(path)
    path = saved(tmp_path / "sparse.pt", lambda x: x.to_sparse())
    with pytest.raises(ValueError, match="is not a checkpoint"):
        load_mvae(path)
