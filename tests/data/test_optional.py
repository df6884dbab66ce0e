"""What only some data sets need is imported by them alone, and named where it is missing."""

import subprocess
import sys

import numpy as np
import pytest

from mvae_fast.data import load_dataset
from mvae_fast.data.optional import needed
from mvae_fast.data.transforms import edges, gray, resize_and_crop

IMAGE = np.zeros((8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("package", "extra", "use"),
    [
        ("skimage", "images", lambda: load_dataset("photos_edge")),
        ("skimage", "images", lambda: edges(IMAGE)),
        ("PIL", "images", lambda: gray(IMAGE)),
        ("PIL", "images", lambda: resize_and_crop(IMAGE)),
        ("sklearn", "train", lambda: load_dataset("digits")),
        ("pooch", "train", lambda: load_dataset("mnist")),
    ],
)
def test_a_missing_package_is_named_with_its_extra(monkeypatch, package, extra, use):
    monkeypatch.delenv("MVAE_FAST_DATA", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.setitem(sys.modules, name, None)  # as where it is not installed
    monkeypatch.setitem(sys.modules, package, None)
    told = rf": {package} is not installed; remedy: pip install 'mvae_fast\[{extra}\]'"
    with pytest.raises(ImportError, match=told):
        use()


def test_a_package_that_is_broken_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("import no_such_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        needed("broken_package", "a test", "train")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("blocked", "argv", "told"),
    [
        (("skimage",), ["train", "--dataset", "photos_edge"], "'mvae_fast[images]'"),
        (("skimage", "cv2", "dlib"), ["train", "--help"], ""),
    ],
)
def test_the_command_without_the_extra(tmp_path, blocked, argv, told):
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked!r}))\n"
    code += f"from mvae_fast.cli import main; sys.exit(main({argv!r}))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == (2 if told else 0), done.stderr
    assert told in done.stderr and "Traceback" not in done.stderr
