"""The reference pages have every public name, and the built site no broken link."""

import importlib
import pkgutil
import re
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag

import pytest

import mvae_fast
from tests.docs.pages import DOCS, ROOT

SITE = ROOT / "build" / "site"


def public():
    """Every name in an ``__all__`` of the package."""
    for info in pkgutil.walk_packages(mvae_fast.__path__, "mvae_fast."):
        if info.name.startswith(("mvae_fast.kernels", "mvae_fast.__main__", "mvae_fast._C")):
            continue  # Triton's, a command, no module
        module = importlib.import_module(info.name)
        for name in getattr(module, "__all__", ()):
            yield f"{info.name}.{name}"
    yield from (f"mvae_fast.{name}" for name in mvae_fast.__all__)


def found(path):
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


DOCUMENTED = [
    name
    for page in sorted((DOCS / "reference").glob("*.md"))
    for name in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)
]


def test_every_public_name_is_documented_once():
    assert len(DOCUMENTED) == len(set(DOCUMENTED))
    documented = {id(found(name)) for name in DOCUMENTED}
    missing = [name for name in public() if id(found(name)) not in documented]
    assert not missing
    assert len(documented) == len(DOCUMENTED)


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.targets, self.anchors = [], set()

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors.update(
            value for key, value in given.items() if key in ("id", "name") and value
        )
        self.targets += [given[key] for key in ("href", "src") if given.get(key)]


def read(path):
    parser = Links()
    parser.feed(path.read_text())
    return parser


@pytest.mark.slow
def test_site_builds_strictly_and_its_links_lead_somewhere(tmp_path):
    build = pytest.importorskip("mkdocs.commands.build")
    from mkdocs.config import load_config

    site = tmp_path / "site"
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(site), strict=True)
    config.plugins.on_startup(command="build", dirty=False)
    build.build(config)
    pages = {path: read(path) for path in site.rglob("*.html")}
    assert len(pages) > 25
    for path, page in pages.items():
        for target in page.targets:
            if re.match(r"\w+:|//", target):
                continue
            file, anchor = urldefrag(unquote(target))
            base = site if file.startswith("/") else path.parent
            goal = (base / file.lstrip("/")).resolve() if file else path
            goal = goal / "index.html" if goal.is_dir() else goal
            assert goal.exists(), (path.relative_to(site), target)
            if anchor and goal in pages:
                assert anchor in pages[goal].anchors, (path.relative_to(site), target)
