import io
import logging
import sys
import warnings

import pytest

from mvae_fast.data import load_dataset
from mvae_fast.experiments.evaluation import evaluation
from mvae_fast.experiments.usage import quiet_lightning
from mvae_fast.vae import build_mvae


def test_hints_are_silent_and_levels_come_back(caplog):
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    with quiet_lightning():
        logger.warning("a hint")
        logger.error("an error")
    assert [record.message for record in caplog.records] in ([], ["an error"])
    assert logger.level == level


def test_other_warnings_still_get_through():
    with quiet_lightning(), pytest.warns(UserWarning, match="mine"):
        warnings.warn("mine", stacklevel=1)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stderr", "quiet", "shown"),
    [(Terminal, False, True), (Terminal, True, False), (io.StringIO, False, False)],
)
def test_evaluation_has_a_bar_where_somebody_looks(stderr, quiet, shown, monkeypatch):
    label = {"type": "label", "num_classes": 10, "hidden": 4}
    image = {"type": "mlp", "shape": [8, 8], "hidden": 4}
    model = build_mvae({"latent_dim": 2, "modalities": {"image": image, "label": label}})
    monkeypatch.setattr("sys.stderr", stderr())
    samples = {"paper": 1, "elbo": 1, "iwae": 2}
    evaluation(model, load_dataset("digits").test.subset(range(5)), samples=samples, quiet=quiet)
    assert ("evaluation" in sys.stderr.getvalue()) == shown
    assert not shown or "/20.0" in sys.stderr.getvalue()  # samples: 5 rows by 1, 1 and 2
