"""What the metadata says of the repository: links, and the README with links that work elsewhere.

The sources name no repository, so that a fork's are right, too: who publishes says which one it is,
as .github/workflows/wheels.yml does. Where nobody says, there are no links, and those of the README
stay as they are.
"""

import os
import re
from collections.abc import Mapping

REPOSITORY = "MVAE_FAST_REPOSITORY"
"""Optional environment variable: the repository's address, ``https://host/owner/name``."""

# Markdown's ](target), and src="target" and href="target" of HTML; not of the page itself, and not
# of other places.
_LINK = re.compile(r"""(\]\(|\b(?:src|srcset|href)=")(?![a-z+]+:|\#|/)([^)\s"]+)""")
_PICTURE = re.compile(r"\.(png|svg|gif|jpe?g|webp)$")


def repository(environ: Mapping[str, str] = os.environ) -> str | None:
    """The repository's address, or None.

    Raises:
        ValueError: If what is said is none.
    """
    address = environ.get(REPOSITORY, "").rstrip("/")
    if address and not re.fullmatch(r"https://[\w.:-]+/[\w.-]+/[\w.-]+", address):
        raise ValueError(f"{REPOSITORY}: got {address!r}, expected https://host/owner/name")
    return address or None


def project_urls(address: str | None, version: str) -> dict[str, str]:
    """The links of a version's page on an index."""
    if address is None:
        return {}
    tree = f"{address}/blob/v{version}"
    return {
        "Source": address,
        "Documentation": f"{tree}/docs",
        "Changelog": f"{tree}/CHANGELOG.md",
        "Issues": f"{address}/issues",
    }


def long_description(readme: str, address: str | None, version: str) -> str:
    """The README, with its links into the repository as those of the version's tag."""
    if address is None:
        return readme

    def absolute(link: re.Match[str]) -> str:
        before, target = link.groups()
        path = target.split("#")[0].removeprefix("./")
        kind = "raw" if _PICTURE.search(path) else "blob"
        return f"{before}{address}/{kind}/v{version}/{target.removeprefix('./')}"

    return _LINK.sub(absolute, readme)
