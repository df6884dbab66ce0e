"""Data of a user's own: what is found in files, and what is said of mistakes."""

import sys

import numpy as np
import pytest
import torch

from mvae_fast.data import read_data, standardized
from mvae_fast.data.own.filling import Fill, filled_arrays, filled_table

TABLE = """name,blood pressure,eyes,visits,smokes,gene_0,gene_1,dose.A,dose.B,grade
p0,120.5,blue,30,1,0.5,1.5,1,2,1
p1,,brown,41,0,-0.5,0.5,3,4,2
p2,133.25,NA,55,,0.1,-1.5,100,6,3
p3,99.75,blue,,0,,,7,8,1
"""


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "people.csv"
    rows = TABLE.splitlines()
    path.write_text("\n".join([rows[0], *rows[1:] * 10]) + "\n")
    return path


def test_a_table_is_what_it_looks_like(table):
    data = read_data(table)
    found = data.modalities()
    kinds = {name: d.get("likelihood", d["type"]) for name, d in found.items()}
    assert kinds == {
        "name": "label",
        "blood_pressure": {"name": "normal", "scale": "learned"},
        "eyes": "label",
        "visits": "label",
        "smokes": "bernoulli",
        "gene": {"name": "normal", "scale": "learned"},
        "dose": "negative_binomial",
        "grade": "label",
    }
    assert found["eyes"]["classes"] == ["blue", "brown"] and found["gene"]["shape"] == [2]
    dataset = data.dataset(found)
    x, mask = dataset[:4]
    assert x["eyes"].tolist()[:2] == [0, 1] and mask["eyes"].tolist() == [True, True, False, True]
    assert x["gene"].shape == (4, 2) and mask["gene"].tolist() == [True, True, True, False]
    assert x["grade"].tolist() == [0, 1, 2, 0] and "grade" not in mask
    assert x["dose"].tolist() == [[1, 2], [3, 4], [100, 6], [7, 8]]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters_and_a_byte_order_mark(table, delimiter, tmp_path):
    path = tmp_path / "other.csv"
    text = table.read_text().replace(",", delimiter)
    path.write_text("\ufeff" + text, encoding="utf-8")
    assert read_data(path).modalities() == read_data(table).modalities()


def test_a_column_of_names_is_left_out(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,x\n" + "".join(f"row{i},{i / 7}\n" for i in range(200)))
    data = read_data(path)
    assert list(data.modalities()) == ["x"]
    assert "200 different texts" in data.left_out()["id"]


def test_a_group_with_many_gaps_is_taken_apart(tmp_path):
    path = tmp_path / "a.csv"
    rows = [f"{i / 7},{'' if i % 3 else i / 5}" for i in range(30)]
    path.write_text("\n".join(["gene_0,gene_1", *rows]))
    data = read_data(path)
    assert list(data.modalities()) == ["gene_0", "gene_1"]
    assert data.dataset(data.modalities())[:][1]["gene_1"].sum() == 10


def test_an_archive(tmp_path):
    path = tmp_path / "a.npz"
    counts = np.arange(60).reshape(20, 3)
    real = np.random.default_rng(0).normal(size=(20, 2, 2))
    real[3] = np.nan
    here = np.arange(20) > 4
    image = np.random.default_rng(0).integers(0, 255, (20, 8, 8), dtype=np.uint8)
    kind = np.array(["cat", "dog"] * 10)
    np.savez(path, counts=counts, counts_mask=here, real=real, image=image, kind=kind)
    data = read_data(path)
    found = data.modalities()
    assert {name: d["type"] for name, d in found.items()} == {
        "counts": "mlp", "real": "mlp", "image": "mlp", "kind": "label"
    }  # fmt: skip
    assert found["image"]["likelihood"] == "continuous_bernoulli"
    x, mask = data.dataset(found)[:]
    assert torch.equal(mask["counts"], torch.from_numpy(here))
    assert mask["real"].tolist() == [i != 3 for i in range(20)]
    assert torch.equal(x["image"], torch.from_numpy(image) / 255)


def write_images(folder, names, size=(8, 8), low=100):
    images = pytest.importorskip("PIL.Image")
    folder.mkdir(parents=True)
    for i, name in enumerate(names):
        pixels = np.full((*size, 3), low + i, dtype=np.uint8)
        images.fromarray(pixels).save(folder / f"{name}.png")


def test_folders_of_classes(tmp_path):
    write_images(tmp_path / "pets" / "cat", ["a", "b"])
    write_images(tmp_path / "pets" / "dog", ["c"])
    data = read_data(tmp_path / "pets")
    found = data.modalities()
    assert found["image"]["shape"] == [3, 8, 8] and found["label"]["classes"] == ["cat", "dog"]
    assert data.dataset(found)[:][0]["label"].tolist() == [0, 0, 1]


def test_folders_of_modalities(tmp_path):
    write_images(tmp_path / "pairs" / "photo", ["a", "b", "c"])
    write_images(tmp_path / "pairs" / "sketch", ["b", "c"], size=(4, 4), low=9)
    data = read_data(tmp_path / "pairs")
    found = data.modalities()
    x, mask = data.dataset(found)[:]
    assert x["photo"].shape == (3, 3, 8, 8) and "photo" not in mask
    assert mask["sketch"].tolist() == [False, True, True]
    assert x["sketch"][1, 0, 0, 0] == torch.tensor(9) / 255


def test_a_folder_with_a_table(tmp_path):
    write_images(tmp_path / "set" / "files", ["a", "b"])
    (tmp_path / "set" / "data.csv").write_text("picture,age\nfiles/a.png,1.5\n,2.5\nfiles/b.png,\n")
    data = read_data(tmp_path / "set")
    x, mask = data.dataset(data.modalities())[:]
    assert mask["picture"].tolist() == [True, False, True]
    assert x["picture"][2, 0, 0, 0] == torch.tensor(101) / 255
    assert mask["age"].tolist() == [True, True, False]


def test_parquet_is_read_as_a_table_is(table, tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    path = tmp_path / "people.parquet"
    pandas.read_csv(table).to_parquet(path)
    data, plain = read_data(path), read_data(table)
    assert data.modalities() == plain.modalities()
    for ours, theirs in zip(
        data.dataset(data.modalities())[:], plain.dataset(plain.modalities())[:], strict=True
    ):
        for name in theirs:
            torch.testing.assert_close(ours[name], theirs[name], equal_nan=True)


def test_what_a_parquet_file_may_hold_beside_numbers(tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    path = tmp_path / "a.parquet"
    days = pandas.to_datetime(["2026-01-01", None, "2026-01-02"])
    frame = {"day": days, "ill": [True, False, None], "n": [2**40, 1, 2], "kind": ["a", None, "b"]}
    pandas.DataFrame(frame).astype({"kind": "category"}).to_parquet(path)
    data = read_data(path)
    found = data.modalities()
    assert found["day"]["classes"] == ["2026-01-01", "2026-01-02"]
    assert found["ill"]["likelihood"] == "bernoulli" and found["kind"]["classes"] == ["a", "b"]
    mask = data.dataset(found)[:][1]
    assert all(mask[name].sum() == 2 for name in ("day", "ill", "kind"))
    pandas.DataFrame({"x": [1.0, 2.0], "y": [[1], [2]]}).to_parquet(path)
    with pytest.raises(ValueError, match="column 'y', row 1: got a .*, expected a number or"):
        read_data(path)


def test_splits_by_fraction_and_by_column(table, tmp_path):
    data = read_data(table)
    found = data.modalities()
    parts = data.splits(found, {"validation": 0.2, "test": 0.3, "seed": 1})
    assert [len(part) for part in parts] == [20, 8, 12]
    again = data.splits(found, {"validation": 0.2, "test": 0.3, "seed": 1})
    assert torch.equal(parts.train[:][0]["dose"], again.train[:][0]["dose"])
    path = tmp_path / "split.csv"
    path.write_text("x,split\n1.5,train\n2.5,test\n3.5,validation\n4.5,train\n")
    data = read_data(path)
    assert list(data.modalities()) == ["x"]
    train, validation, test = data.splits(data.modalities())
    assert train[:][0]["x"].tolist() == [[1.5], [4.5]] and test[:][0]["x"].tolist() == [[2.5]]


def test_standardised_by_the_rows_that_are_trained_on(table):
    data = read_data(table)
    found = data.modalities()
    train = data.dataset(found).subset([0, 1, 2, 4])
    units = standardized(found, train)["blood_pressure"]["standardize"]
    values = np.array([120.5, 133.25, 120.5])
    assert units == {"mean": [pytest.approx(values.mean())], "std": [pytest.approx(values.std())]}
    assert found["blood_pressure"]["standardize"] is True


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "got no rows"),
        ("a,b\n", "got no rows"),
        ("a,a\n1,2\n", "got the name 'a' for column 2"),
        ("a,\n1,2\n", "got the name '' for column 2"),
        ("a,b\n1,2\n1\n", "row 2: got 1 cells, expected 2"),
        ("a,b\n1,2\n2,x\n3,4\n4,5\n", "column 'b', row 2: got 'x', expected a number"),
        ("a,b\n1,2\n2,NAN\n3,4\n", "column 'b', row 2: got NaN or infinity"),
        (
            "a,b\n1,2\n2,inf\n3,4\n",
            "column 'b', row 2: got NaN or infinity, expected a finite number",
        ),
        ("joint,b\n1,2\n2,3\n", "column 'joint': it cannot be the modality 'joint'"),
        ("a b,a+b\n1.5,2\n2,3\n", "column 'a+b': it cannot be the modality 'a_b', the name of"),
        ("a\nx\nx\n", "found no column that can be a modality"),
    ],
)
def test_a_mistake_in_a_table_names_its_column(text, told, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(ValueError) as error:
        read_data(path).modalities()
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"eyes": {"type": "label", "num_classes": 2, "classes": ["blue", "brwn"]}},
         "column 'eyes', row 2: got the class 'brown', expected one of blue, brwn; did you mean"),
        ({"gene": {"type": "mlp", "shape": [2], "likelihood": "poisson"}},
         "column 'gene_0', row 1: got 0.5, expected a whole number >= 0, as the likelihood pois"),
        ({"gene": {"type": "mlp", "shape": [2], "likelihood": "bernoulli"}},
         "column 'gene_1', row 1: got 1.5, expected a number in [0, 1]"),
        ({"gene": {"type": "mlp", "shape": [3], "likelihood": "normal"}},
         "column 'gene_0': got rows of the shape (2,), expected (3,)"),
        ({"eyes": {"type": "mlp", "shape": [1]}},
         "column 'eyes', row 1: got 'blue', expected a number"),
        ({"eye": {"type": "label", "num_classes": 2}},
         "no column or array for the modality 'eye'; it has 'name', "),
        ({"eye": {"type": "label", "num_classes": 2}}, "did you mean eyes?"),
    ],
)  # fmt: skip
def test_data_that_do_not_fit_a_description_are_named(table, change, told):
    with pytest.raises(ValueError) as error:
        read_data(table).dataset(change)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("split", "told"),
    [
        ({"tests": 0.1}, "split: got 'tests', expected some of"),
        ({"test": 1.5}, "split: got test 1.5, expected a number in (0, 1)"),
        ({"test": "much"}, "split: got test 'much'"),
        ({"seed": -1}, "split.seed"),
        ({"validation": 0.5, "test": 0.5}, "split: got no row for train of 40 rows"),
        ({"column": "fold"}, "split: got the column 'fold', expected one of"),
        ({"column": "eyes"}, "column 'eyes', row 1: got 'blue', expected one of train, validation"),
        ({"column": "eyes", "seed": 1}, "expected column alone"),
    ],
)
def test_a_split_that_cannot_be(table, split, told):
    data = read_data(table)
    with pytest.raises(ValueError) as error:
        data.splits({"dose": data.modalities()["dose"]}, split)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"a": np.zeros(3), "b": np.zeros(4)}, "got arrays of {'a': 3, 'b': 4} rows"),
        ({"a": np.float64(1.0)}, "array 'a': got a single value"),
        ({"a": np.zeros(3, dtype=complex)}, "array 'a': got complex128, expected numbers"),
        ({"a": np.zeros(3), "a_mask": np.zeros(3)}, "array 'a': got a mask float64 (3,)"),
        ({"a": np.array([None, 1])}, "expected a .npz file of numbers and strings"),
        ({"a": np.array([[1.0], [np.inf]])}, "array 'a', row 1: got NaN or infinity"),
        ({"a": np.ones((3, 4, 4), dtype=np.uint8)}, "array 'a': got bytes 0 and 1 only"),
        ({"a": np.array([["x", "y"]])}, "array 'a': got rows of the shape (2,), expected one"),
    ],
)
def test_a_mistake_in_an_archive_names_its_array(arrays, told, tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError) as error:
        read_data(path).modalities()
    assert told in str(error.value)


def test_a_mistake_in_a_folder_names_its_file(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="without data.csv, data.parquet or subfolders of images"):
        read_data(tmp_path / "empty")
    write_images(tmp_path / "pets" / "cat", ["a"])
    write_images(tmp_path / "pets" / "dog", ["b"], size=(4, 4))
    with pytest.raises(ValueError, match=r"b.png of the shape \(3, 4, 4\), expected \(3, 8, 8\)"):
        read_data(tmp_path / "pets")
    (tmp_path / "pets" / "dog" / "b.png").write_text("no image")
    with pytest.raises(ValueError, match="b.png is no image"):
        read_data(tmp_path / "pets")
    (tmp_path / "pets" / "data.csv").write_text("file\ncat/a.png\ncat/z.png\n")
    with pytest.raises(ValueError, match="column 'file', row 2: got .*z.png, expected a file"):
        read_data(tmp_path / "pets")


def test_what_is_no_data(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        read_data(tmp_path / "none.csv")
    (tmp_path / "a.xlsx").touch()
    with pytest.raises(ValueError, match="got the suffix '.xlsx', expected .npz, .csv, .parquet"):
        read_data(tmp_path / "a.xlsx")
    (tmp_path / "a.npz").write_bytes(b"PK damaged")
    with pytest.raises(ValueError, match="a.npz: expected a .npz file"):
        read_data(tmp_path / "a.npz")
    (tmp_path / "a.csv").write_bytes(b"a\n\xff\xfe\n")
    with pytest.raises(ValueError, match="expected text in UTF-8"):
        read_data(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("package", "extra", "name"), [("pyarrow", "tables", "a.parquet"), ("PIL", "images", "pets")]
)
def test_a_package_that_is_missing_is_named_with_its_extra(
    package, extra, name, tmp_path, monkeypatch
):
    (tmp_path / "pets" / "cat").mkdir(parents=True)
    (tmp_path / "pets" / "cat" / "a.png").touch()
    (tmp_path / "a.parquet").touch()
    monkeypatch.setitem(sys.modules, package, None)
    told = rf"{package} is not installed; remedy: pip install 'mvae_fast\[{extra}\]'"
    with pytest.raises(ImportError, match=told):
        read_data(tmp_path / name)


@pytest.fixture
def filled(table):
    """A table of four rows, and fills of its gaps: of eyes with brown, of genes with 7 and 8."""
    table.write_text(TABLE)
    data = read_data(table)
    found = {
        "eyes": {"type": "label", "num_classes": 2, "classes": ["blue", "brown"]},
        "gene": {"type": "mlp", "shape": [2], "likelihood": "normal"},
        "smokes": {"type": "mlp", "shape": [1], "likelihood": "bernoulli"},
        "new": {"type": "mlp", "shape": [1], "likelihood": "poisson"},
    }
    gene = np.array([[0.5, 1.5], [-0.5, 0.5], [0.1, -1.5], [7.0, 8.0]], dtype=np.float32)
    last, third = np.arange(4) == 3, np.arange(4) == 2
    return data, found, {
        "eyes": Fill(np.array([0, 1, 1, 0]), np.array([1, 1, 0.75, 1]), third),
        "gene": Fill(gene, np.full((4, 2), 0.25), last),
        "smokes": Fill(np.array([[1.0], [0.0], [0.375], [0.0]]), np.zeros((4, 1)), third),
        "new": Fill(np.full((4, 1), 2.6), np.ones((4, 1)), np.ones(4, dtype=bool)),
    }  # fmt: skip


def test_only_gaps_of_a_table_are_filled(filled):
    table = filled_table(*filled)
    lines = [line.split(",") for line in TABLE.splitlines()]
    assert list(table)[: len(lines[0])] == lines[0]
    assert table["eyes"] == ["blue", "brown", "brown", "blue"]
    assert table["eyes_probability"] == [None, None, 0.75, None]
    assert table["gene_0"] == ["0.5", "-0.5", "0.1", 7.0] and table["gene_1"][3] == 8.0
    assert table["gene_1_std"] == [None, None, None, 0.25]
    assert table["smokes"] == ["1", "0", 0, "0"] and table["smokes_probability"][2] == 0.625
    assert table["new"] == [3, 3, 3, 3] and table["new_std"] == [1.0] * 4
    # What is no modality of the model stays as it was.
    for place in (0, 1, 3, 7, 8, 9):
        assert table[lines[0][place]] == [line[place] for line in lines[1:]]


def test_only_gaps_of_arrays_are_filled(filled):
    arrays = filled_arrays(*filled)
    assert arrays["eyes"].tolist() == ["blue", "brown", "brown", "blue"]
    assert arrays["gene"][3].tolist() == [7.0, 8.0]
    assert arrays["gene_filled"].tolist() == [[False] * 2] * 3 + [[True] * 2]
    assert np.isnan(arrays["gene_std"][:3]).all() and (arrays["gene_std"][3] == 0.25).all()
    assert arrays["new"].tolist() == [[3]] * 4
    assert arrays["name"].tolist() == ["p0", "p1", "p2", "p3"]


def test_part_of_a_row_stays(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, a=np.array([[1.0, np.nan], [3.0, 4.0]]))
    described = {"a": {"type": "mlp", "shape": [2], "likelihood": "normal"}}
    fill = Fill(np.full((2, 2), 9.0), np.ones((2, 2)), np.array([True, False]))
    arrays = filled_arrays(read_data(path), described, {"a": fill})
    assert arrays["a"].tolist() == [[1.0, 9.0], [3.0, 4.0]]
    assert arrays["a_filled"].tolist() == [[False, True], [False, False]]
    table = filled_table(read_data(path), described, {"a": fill})
    assert table["a_1"] == [9.0, 4.0]


def test_an_image_is_no_cell(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, a=np.full((2, 4, 4), 9, dtype=np.uint8))
    described = {"a": {"type": "mlp", "shape": [4, 4]}}
    fill = Fill(np.full((2, 4, 4), 0.2), np.ones((2, 4, 4)), np.array([True, False]))
    with pytest.raises(ValueError, match="'a' has no cells of a table, expected a .npz file"):
        filled_table(read_data(path), described, {"a": fill})
    arrays = filled_arrays(read_data(path), described, {"a": fill})
    assert arrays["a"].dtype == np.uint8 and (arrays["a"][0] == 51).all()
    assert (arrays["a"][1] == 9).all() and (arrays["a_std"][0] == 255).all()
