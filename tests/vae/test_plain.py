import json
from enum import Enum
from fractions import Fraction

import numpy as np
import pytest
import torch

from mvae_fast.vae.builders.plain import plain


class Kind(str, Enum):
    CNF = "cnf"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (np.bool_(True), True),
        (np.int8(-3), -3),
        (np.float32(0.5), 0.5),
        (np.longdouble(0.25), 0.25),
        (Fraction(1, 4), 0.25),
        (np.str_("cnf"), "cnf"),
        (Kind.CNF, "cnf"),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array([[1, 2]], ">i2")[:, ::-1], [[2, 1]]),
        (torch.tensor([0.5, 1.0]), [0.5, 1.0]),
        ((1, (2, [3])), [1, [2, [3]]]),
        ({np.str_("a"): {"b": np.array(1)}}, {"a": {"b": 1}}),
    ],
)
def test_what_comes_out_is_of_pythons_own_types(value, expected):
    def kinds(value):
        if isinstance(value, dict):
            return [(type(key), kinds(item)) for key, item in value.items()]
        return [type(value), *map(kinds, value)] if isinstance(value, list) else type(value)

    result = plain("value", value)
    assert result == expected == json.loads(json.dumps(result))
    assert kinds(result) == kinds(expected)


def test_it_is_a_copy():
    value = {"a": [1]}
    result = plain("value", value)
    result["a"].append(2)
    assert value == {"a": [1]}


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"a": [0, {"b": {1}}]}, r"value\.a\[1\]\.b: got {1}"),
        ({"a": {1: 2}}, r"value\.a: got the key 1, expected strings"),
        (np.array([None, object()]), r"value\[1\]: got <object"),
        (b"cnf", "value: got b'cnf'"),
    ],
)
def test_the_place_of_anything_else_is_named(value, place):
    with pytest.raises(ValueError, match=place):
        plain("value", value)
