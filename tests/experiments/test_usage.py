import pytest

from mvae_fast.experiments.usage import UsageError, usage


@pytest.mark.parametrize("error", [PermissionError, IsADirectoryError, ConnectionError])
def test_what_the_system_refuses_is_the_users(error):
    with pytest.raises(UsageError, match="not to be had"), usage():
        raise error("not to be had")


@pytest.mark.parametrize("error", [TypeError, RuntimeError, ModuleNotFoundError])
def test_faults_of_ours_keep_their_traceback(error):
    with pytest.raises(error), usage():
        raise error
