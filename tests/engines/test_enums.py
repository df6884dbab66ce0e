"""The numbers that Python and C++ share: csrc/enums.h against mvae_fast/engines/enums.py."""

import re
from pathlib import Path

from mvae_fast.core import nonlinearities
from mvae_fast.core.problem import PENALTIES, PRECISIONS
from mvae_fast.engines import cuda, enums

CSRC = Path(__file__).parents[2] / "csrc"


def without_comments(path):
    return re.sub(r"//.*", "", path.read_text(encoding="utf-8"))


def enumerations():
    """Name and number of every value of every enum."""
    found = {}
    for name, body in re.findall(r"enum class (\w+) : int \{(.*?)\};", TEXT, re.DOTALL):
        values = [value.strip() for value in body.split(",") if value.strip()]
        assert all(re.fullmatch(r"\w+", value) for value in values), "none has a number given"
        found[name] = {value: number for number, value in enumerate(values)}
    return found


def constants(text):
    return {
        name: int(value)
        for name, value in re.findall(r"constexpr int(?:64_t)? (k\w+) = (\d+);", text)
    }


TEXT = without_comments(CSRC / "enums.h")


def test_nothing_is_overlooked():
    """Every definition in the file is one that the tests below have read."""
    definitions = re.findall(r"\b(?:enum|constexpr)\b", TEXT)
    assert len(definitions) == len(enumerations()) + len(constants(TEXT))
    assert set(enumerations()) == {"Nonlinearity", "Operands", "Form"}


def test_nonlinearities():
    assert enums.NONLINEARITIES == enumerations()["Nonlinearity"]
    assert set(enums.NONLINEARITIES) <= set(nonlinearities.NONLINEARITIES)
    first = len(enums.FIRST_NONLINEARITIES)
    assert enums.FIRST_NONLINEARITIES == tuple(enumerations()["Nonlinearity"])[:first]


def test_operands():
    assert enums.OPERANDS == enumerations()["Operands"]
    assert tuple(enums.OPERANDS)[:3] == PRECISIONS


def test_forms():
    assert enumerations()["Form"] == {"coefficients": enums.COEFFICIENTS, "tables": enums.TABLES}


def test_penalties():
    given = constants(TEXT)
    names = {name: "k" + "".join(map(str.capitalize, name.split("_"))) for name in PENALTIES}
    assert enums.PENALTY_BITS == {name: given[constant] for name, constant in names.items()}
    assert given["kPenalties"] == len(PENALTIES)


def test_features():
    assert enums.MOST_FEATURES == constants(TEXT)["kMostFeatures"]


def test_limits_of_the_cuda_engine():
    limits = constants(without_comments(CSRC / "cuda" / "plan.h"))
    assert (cuda._MAX_LAYERS, cuda._MAX_STAGES) == (limits["kMaxLayers"], limits["kMaxStages"])
