"""What SECURITY.md says of the code, checked in the code."""

import ast
from pathlib import Path

import pytest

from mvae_fast.data.mnist import files
from mvae_fast.data.sources import Source

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


def test_every_download_has_a_checksum():
    sources = [value for value in vars(files).values() if isinstance(value, Source) and value.url]
    assert len(sources) == 4
    for source in sources:
        packed = source.files if source.archive is None else (source.archive,)
        assert set(packed) <= set(source.delivered), source.name
    plain = {source.name for source in sources if source.url.startswith("http:")}
    assert plain == {"fashion_mnist", "kmnist"}
