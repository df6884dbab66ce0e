"""Links to a repository that the sources do not name."""

from __future__ import annotations

import email
import re
import tarfile

import pytest

from build_backend.metadata import REPOSITORY, long_description, project_urls, repository
from build_backend.target_torch import ROOT
from mvae_fast import __version__

ADDRESS = "https://example.org/owner/name"


def test_who_publishes_says_which_repository_it_is():
    assert repository({}) is None
    assert repository({REPOSITORY: ""}) is None
    assert repository({REPOSITORY: f"{ADDRESS}/"}) == ADDRESS
    for wrong in ("owner/name", "http://example.org/owner/name", ADDRESS + "/x", ADDRESS + "\n"):
        with pytest.raises(ValueError, match=f"{REPOSITORY}: got .*, expected https://host/owner"):
            repository({REPOSITORY: wrong})


def test_links_become_those_of_the_version():
    readme = """
[a](docs/a.md) [b](docs/b.md#c) [d](#e) [f](https://f.org/g) ![h](docs/h.png) [i](./LICENSE)
<img src="docs/j.svg" width="1"> <a href="docs/k.md">k</a> <a href="mailto:l@m.n">l</a> x[0](1)
"""
    at, raw = f"{ADDRESS}/blob/v1.2", f"{ADDRESS}/raw/v1.2"
    expected = f"""
[a]({at}/docs/a.md) [b]({at}/docs/b.md#c) [d](#e) [f](https://f.org/g) ![h]({raw}/docs/h.png) [i]({at}/LICENSE)
<img src="{raw}/docs/j.svg" width="1"> <a href="{at}/docs/k.md">k</a> <a href="mailto:l@m.n">l</a> x[0]({at}/1)
"""  # noqa: E501
    assert long_description(readme, ADDRESS, "1.2") == expected
    assert long_description(readme, None, "1.2") == readme


def test_every_link_of_the_readme_leads_to_a_file():
    readme = (ROOT / "README.md").read_text()
    made = long_description(readme, ADDRESS, "1.2")
    paths = re.findall(rf"{ADDRESS}/(?:blob|raw)/v1\.2/([^)#\"\s]+)", made)
    assert paths
    assert not [path for path in paths if not (ROOT / path).exists()]
    # Nothing is left that an index page could not follow.
    targets = re.findall(r"\]\(([^)\s]+)\)", made)
    assert all(target.startswith(("https://", "#")) for target in targets)


@pytest.mark.parametrize("address", ["", ADDRESS])
def test_the_metadata(source_tree, python, address):
    code = "from build_backend.backend import build_sdist; build_sdist('dist')"
    python("-c", code, cwd=source_tree, **{REPOSITORY: address})
    with tarfile.open(source_tree / "dist" / f"mvae_fast-{__version__}.tar.gz") as archive:
        packed = archive.extractfile(f"mvae_fast-{__version__}/PKG-INFO")
        assert packed is not None
        metadata = email.message_from_bytes(packed.read())
    links = dict(link.split(", ") for link in metadata.get_all("Project-URL") or [])
    assert links == project_urls(address or None, __version__)
    assert bool(links) == bool(address)
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Description-Content-Type"] == "text/markdown"
    first = (ROOT / "README.md").read_text().splitlines()[0]
    text = metadata.get_payload()
    assert text.startswith(first)
    assert (f"]({ADDRESS}/blob/v{__version__}/" in text) == bool(address)
    assert "](docs/" not in text or not address
