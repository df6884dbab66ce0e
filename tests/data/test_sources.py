import gzip
import hashlib
import io
import zipfile

import pytest

from mvae_fast.data.sources import Source, data_root, find_files

HOME = "https://example.org/tiny"


def tiny(**changes):
    return Source(**{"name": "tiny", "files": ("a", "b"), "homepage": HOME, **changes})


def md5(content):
    return f"md5:{hashlib.md5(content).hexdigest()}"


def test_the_folder_is_the_argument_then_the_variable_then_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MVAE_FAST_DATA", str(tmp_path / "variable"))
    assert data_root(tmp_path) == tmp_path
    assert data_root() == tmp_path / "variable"
    monkeypatch.delenv("MVAE_FAST_DATA")
    assert data_root().name == "mvae_fast"
    assert "~" not in str(data_root("~/data"))


def test_the_nearest_folder_wins_and_plain_files_come_first(tmp_path):
    for place in ("a", "tiny/raw/a", "tiny/raw/a.gz", "tiny/b.gz"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    found = find_files(tiny(), tmp_path)
    assert found == {"a": tmp_path / "tiny/raw/a", "b": tmp_path / "tiny/b.gz"}


@pytest.mark.slow
def test_missing_files_are_downloaded_once(tmp_path, server):
    mirror, url = server
    packed = {name: gzip.compress(name.encode()) for name in "ab"}
    for name, content in packed.items():
        (mirror / f"{name}.gz").write_bytes(content)
    source = tiny(url=url, delivered={name: md5(content) for name, content in packed.items()})
    data = tmp_path / "data"
    with pytest.raises(FileNotFoundError, match="or let them be downloaded with --download"):
        find_files(source, data)
    found = find_files(source, data, download=True)
    assert {name: path.read_bytes() for name, path in found.items()} == packed
    assert found["a"] == data / "tiny" / "a.gz"
    (mirror / "a.gz").unlink()
    assert find_files(source, data, download=True) == found


@pytest.mark.slow
def test_a_download_with_another_checksum_is_not_kept(tmp_path, server):
    mirror, url = server
    for name in "ab":
        (mirror / f"{name}.gz").write_bytes(b"something else")
    source = tiny(url=url, delivered={"a": md5(b"a")})
    with pytest.raises(ValueError, match=f"{md5(b'something else')[4:]}"):
        find_files(source, tmp_path / "data", download=True)
    assert not list((tmp_path / "data" / "tiny").iterdir())


@pytest.mark.slow
def test_a_failed_download_says_what_to_do(tmp_path, server):
    with pytest.raises(ConnectionError, match=f"a.gz could not be downloaded .*{HOME}"):
        find_files(tiny(url=server[1]), tmp_path / "data", download=True)


@pytest.mark.slow
def test_archives_are_unpacked_and_removed(tmp_path, server):
    mirror, url = server
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in ("a", "b", "unwanted"):
            archive.writestr(f"gzip/{name}.gz", gzip.compress(name.encode()))
    (mirror / "all.zip").write_bytes(packed.getvalue())
    source = tiny(url=url, archive="all.zip", delivered={"all.zip": md5(packed.getvalue())})
    found = find_files(source, tmp_path, download=True)
    assert gzip.decompress(found["b"].read_bytes()) == b"b"
    assert {path.name for path in (tmp_path / "tiny").iterdir()} == {"a.gz", "b.gz"}


def test_what_cannot_be_downloaded_says_where_it_is(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"missing b .* get them from {HOME}"):
        (tmp_path / "a").touch()
        find_files(tiny(), tmp_path, download=True)
