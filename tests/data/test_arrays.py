"""Arrays as users have them: what a data set makes of them, or says of them."""

import warnings

import numpy as np
import pytest
import torch

from mvae_fast.data import LazyArray, MultimodalDataset

NUMBERS = [3, 1, 2]


def values(array, **arguments):
    """What a data set serves of an array, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return MultimodalDataset({"data": array}, **arguments)[:][0]["data"]


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", ">i2", "<i4", ">i8", "uint32"])
def test_integers_of_any_size_and_byte_order_are_labels(dtype):
    assert torch.equal(values(np.array(NUMBERS, dtype)), torch.tensor(NUMBERS))


@pytest.mark.parametrize("dtype", ["float16", ">f4", "<f4", "float64", ">f8"])
def test_floats_of_any_size_and_byte_order_are_numbers(dtype):
    assert torch.equal(values(np.array(NUMBERS, dtype)), torch.tensor(NUMBERS).float())


@pytest.mark.parametrize(
    "array",
    [
        NUMBERS,
        tuple(NUMBERS),
        np.array(NUMBERS),
        np.array(NUMBERS[::-1])[::-1],
        np.repeat(NUMBERS, 2)[::2],
        np.array([NUMBERS, NUMBERS]).T[:, 0],
        np.frombuffer(np.array(NUMBERS).tobytes(), np.int64),  # read-only
        torch.tensor(NUMBERS),
        torch.tensor(NUMBERS, dtype=torch.int8),
        [torch.tensor(number) for number in NUMBERS],
        LazyArray([np.array(NUMBERS, ">i4")]),
    ],
)
def test_the_same_labels_in_many_forms(array):
    assert torch.equal(values(array), torch.tensor(NUMBERS))


def test_images_that_are_flipped_or_broadcast():
    image = np.arange(24.0).reshape(2, 3, 4)
    for flipped in (image[:, ::-1], image[..., ::-1], image[::-1, ::-1, ::-1], image.T[::-1]):
        assert torch.equal(values(flipped), torch.tensor(flipped.tolist()))
    assert torch.equal(values(np.broadcast_to(0.5, (2, 3))), torch.full((2, 3), 0.5))


def test_a_tensor_leaves_its_graph():
    weight = torch.ones(3, requires_grad=True)
    assert not values(2 * weight).requires_grad


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array(["cat", "dog"]), "got <U3 such as .*cat.*; remedy: np.unique"),
        (["cat", "dog"], "got <U3 .*; remedy: np.unique"),
        (np.array(["cat", None], object), "got object such as 'cat'; remedy: np.unique"),
        (np.array([1, None]), "got object .* masks for rows that are missing"),
        ([None, None], "got object such as None"),
        (np.array(["2020-01-01"], "datetime64[D]"), "got datetime64"),
        (np.array([b"a"]), r"got \\|S1"),
        (np.zeros(2, [("a", "f4")]), "got .*f4"),
        (np.array([True, False]), "got torch.bool; remedy: x.astype.int. for labels"),
        (torch.tensor([True]), "got torch.bool"),
        (np.array([1j]), "got torch.complex128"),
        (np.array([1], np.longdouble), "remedy: x.astype"),
        (torch.eye(2).to_sparse(), "got a tensor of layout torch.sparse_coo.*to_dense"),
        ({"a": [1, 2]}, "got object"),
        (None, "got object"),
        ([[1], [1, 2]], "inhomogeneous"),
        ([torch.zeros(2), torch.zeros(3)], r"rows of the shapes \[\(2,\), \(3,\)\]"),
        (3, "got a single number"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*ragged")
def test_what_holds_no_numbers_is_named(array, message):
    with pytest.raises((TypeError, ValueError), match=f"^modality 'data': .*{message}"):
        values(array)


def test_a_file_of_strings_is_named(tmp_path):
    np.save(tmp_path / "a.npy", np.array(["cat", "dog"]))
    with pytest.raises(TypeError, match="^modality 'data': .* np.unique"):
        values(np.load(tmp_path / "a.npy", mmap_mode="r"))


def test_rows_that_are_masked_are_missing():
    label = np.ma.masked_equal(np.array([0, 999, 2]), 999)
    image = np.ma.array(np.ones((3, 2)), mask=[[0, 0], [0, 0], [1, 1]])
    both = MultimodalDataset(
        {"label": label, "image": image, "sound": np.ma.array(NUMBERS)},
        masks={"label": [False, True, True]},
    )
    assert {name: mask.tolist() for name, mask in both.masks.items()} == {
        "label": [False, False, True],
        "image": [True, True, False],
    }
    assert both.subset([2, 0]).masks["label"].tolist() == [True, False]


def test_rows_that_are_masked_in_part_are_refused():
    pixels = np.ma.array(np.ones((3, 2, 2)), mask=False)
    pixels[1, 0, 1] = np.ma.masked
    with pytest.raises(ValueError, match="^modality 'data': row 1 is masked in part.*filled"):
        values(pixels)
    with pytest.raises(TypeError, match="shards must not be masked arrays"):
        LazyArray([pixels])
    with pytest.raises(TypeError, match=r"masks\['data'\] must not be masked itself"):
        values(NUMBERS, masks={"data": np.ma.array([True] * 3, mask=[0, 1, 0])})


def test_masks_in_many_forms():
    mask = [True, False, True]
    for here in (mask, np.array(mask), np.array(mask)[::-1], torch.tensor(mask), tuple(mask)):
        assert MultimodalDataset({"a": NUMBERS}, {"a": here}).masks["a"].tolist() == mask
    for here in ([1, 0, 1], ["yes"] * 3, [True, None, True], torch.ones(3)):
        with pytest.raises(TypeError, match=r"masks\['a'\] must be boolean"):
            MultimodalDataset({"a": NUMBERS}, {"a": here})


@pytest.mark.slow
def test_pandas():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"x": [0.0, 0.5, 1.0], "n": NUMBERS, "name": ["a", "b", "c"]})
    filtered = frame[frame["x"] > 0]
    assert list(filtered.index) == [1, 2]
    assert values(filtered["n"]).tolist() == [1, 2]
    assert values(frame["n"].astype("int8")[::-1]).tolist() == [2, 1, 3]
    assert torch.equal(values(filtered[["x", "n"]]), torch.tensor([[0.5, 1.0], [1.0, 2.0]]))
    for strings in (frame, frame["name"], frame["name"].astype("category")):
        with pytest.raises(TypeError, match="^modality 'data': .* got object"):
            values(strings)
    with pytest.raises(TypeError, match="^modality 'data': .* got torch.bool"):
        values(frame["x"] > 0)
    dataset = MultimodalDataset({"n": filtered["n"]}, {"n": filtered["x"] > 0.7})
    assert dataset.masks["n"].tolist() == [False, True]
    assert dataset.subset(filtered["n"] == 2).arrays["n"].tolist() == [2]
    assert dataset.subset(pd.Index([1, 0])).arrays["n"].tolist() == [2, 1]
