"""Write the Triton engine in the layout of the Hugging Face ``kernels`` hub; nothing is compiled.

    python hub/write.py FOLDER

FOLDER then holds ``README.md`` and ``build/torch-cuda``, which ``kernels.get_local_kernel`` loads
and ``hf upload --repo-type kernel`` publishes (docs/hub.md). The files are those of kernels/ and of
mvae_fast/core/, copied here and nowhere else.
"""

import argparse
import base64
import hashlib
import json
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAME = "fast-cnf"
VERSION = 0
"""Of the kernel's interface, by the Hub's rules; 0: not stable, and not yet run on a GPU."""

# Of mvae_fast/core/: what packs a net, and knows nothing else of the package.
CORE = ("tables.py", "trace.py", "tableaus.py")


def write(folder: Path) -> Path:
    """Write the layout into a folder, and return the folder of the one build variant.

    Raises:
        FileExistsError: If there is a build already.
    """
    variant = folder / "build" / "torch-cuda"
    shutil.copytree(ROOT / "kernels", variant, ignore=shutil.ignore_patterns("__pycache__"))
    for name in CORE:
        text = (ROOT / "mvae_fast" / "core" / name).read_text(encoding="utf-8")
        (variant / name).write_text(text.replace("from mvae_fast.core.", "from ."))
    shutil.copy(ROOT / "hub" / "kernel.py", variant / "__init__.py")
    older = variant / NAME.replace("-", "_")
    older.mkdir()
    shutil.copy(ROOT / "hub" / "older.py", older / "__init__.py")
    metadata = variant / "metadata.json"
    metadata.write_text(json.dumps(describe(variant), indent=2) + "\n", encoding="utf-8")
    shutil.copy(ROOT / "hub" / "CARD.md", folder / "README.md")
    shutil.copy(ROOT / "LICENSE", folder)
    return variant


def describe(variant: Path) -> dict[str, object]:
    """The metadata of a variant: what it is, and the checksum of each of its files."""
    files = sorted(path for path in variant.rglob("*") if path.is_file())
    digests = {path: hashlib.sha256(path.read_bytes()).digest() for path in files}
    whole = hashlib.sha256(b"".join(digests.values())).hexdigest()
    return {
        "name": NAME,
        # Unique: several versions may be loaded side by side.
        "id": f"_{NAME.replace('-', '_')}_cuda_{whole[:7]}",
        "version": VERSION,
        "license": "mit",
        "python-depends": [],
        "backend": {"type": "cuda"},
        "digest": {
            "algorithm": "sha256",
            "files": {
                path.relative_to(variant).as_posix(): base64.b64encode(digest).decode()
                for path, digest in digests.items()
            },
        },
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder to write to")
    print(write(parser.parse_args().folder))
