import json

import pytest

from mvae_fast.experiments.files import make_folder, write_json


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "new" / "numbers.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in path.parent.iterdir()] == ["numbers.json"]


def test_a_folder_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").touch()
    for path, reason in (("file", "File exists"), ("file/a/b", "Not a directory")):
        with pytest.raises(ValueError, match=f"--out must be a folder, got .*{path}: {reason}"):
            make_folder(tmp_path / path, "--out")
    assert make_folder(str(tmp_path / "a" / "b"), "--out").is_dir()
    assert make_folder(tmp_path / "a", "--out") == tmp_path / "a"
