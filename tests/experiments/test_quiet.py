import logging
import warnings

import pytest

from mvae_fast.experiments.usage import quiet_lightning


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
