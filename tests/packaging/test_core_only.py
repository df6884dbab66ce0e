"""The core and `mvae-fast info` work with torch, torchdiffeq and numpy alone."""

from __future__ import annotations

import pytest

EXTRAS = (
    "lightning matplotlib pooch pytorch_lightning shtab sklearn tensorboard "
    "torchmetrics tqdm triton yaml"
).split()
# None in sys.modules makes an import fail as it does where the package is missing.
BLOCK = f"import sys; sys.modules.update(dict.fromkeys({EXTRAS!r})); "


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("from mvae_fast.cli import main; main(['info'])", "engines\n"),
        ("from mvae_fast import FastCNF, ODEfunc, ODEnet; print(FastCNF.__name__)", "FastCNF"),
    ],
    ids=["info", "import"],
)
def test_without_the_extras(tmp_path, python, code, expected):
    assert expected in python("-c", BLOCK + code, cwd=tmp_path)


def test_train_names_the_extra_it_needs(tmp_path, python):
    code = "from mvae_fast.cli import main; print('status', main(['train']))"
    output = python("-c", BLOCK + code, cwd=tmp_path)
    assert "mvae_fast[train]" in output
    assert "status 1" in output
