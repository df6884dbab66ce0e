import json

import pytest

from mvae_fast.experiments.files import write_json


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "new" / "numbers.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in path.parent.iterdir()] == ["numbers.json"]
