"""The pages and their code; ``python -m tests.docs.pages`` makes the tutorials' pictures anew."""

import os
import re
import shutil
import tempfile
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FIGURES = DOCS / "figures"
#: Their blocks run one after the other; those of all other pages each by itself.
TUTORIALS = {
    path.stem: path
    for path in sorted((DOCS / "tutorials").glob("*.md"))
    if not path.stem.startswith("from_")
}
PAGES = [
    path
    for path in (ROOT / "README.md", *sorted(DOCS.rglob("*.md")))
    if path not in TUTORIALS.values()
]


def blocks(path):
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), flags=re.DOTALL | re.MULTILINE)


def pictures(path):
    """The names of the pictures that a page shows."""
    return re.findall(r"!\[[^]]*\]\((?:[\w.]+/)*(\w+\.png)\)", path.read_text())


def execute(*codes):
    """Run code in the present folder; the names that it leaves."""
    torch.manual_seed(0)
    names = {"__name__": "documentation"}
    for code in codes:
        exec(compile(code, "documentation", "exec"), names)
    return names


def main():
    here = Path.cwd()
    for name, path in TUTORIALS.items():
        print(f"\n{name}")
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            execute(*blocks(path))
            for picture in pictures(path):
                shutil.copy(picture, FIGURES)
            os.chdir(here)


if __name__ == "__main__":
    main()
