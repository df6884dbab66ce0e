import math

import pytest

from mvae_fast.experiments.report import Entry
from mvae_fast.experiments.reproduce.table3 import Point, learning_curves

QUANTITIES = (("ELBO joint", "elbo"), ("ELBO joint", "paper"), ("label right", "given X1"))
POINTS = [
    Point(model, fraction, Entry(section, row, source, "any", (value, value + 2 * fraction)))
    for section in ("mnist", "digits")
    for model, value in (("MVAE", 30.0), ("MVAE-CNF", 20.0))
    for fraction in (1.0, 0.1)
    for row, source in (
        ("ELBO joint", "elbo"),
        ("ELBO joint", "paper"),
        ("label right", "given X1"),
    )
]


def test_each_model_has_a_curve_of_means_with_bars():
    figure = learning_curves(POINTS)
    assert [axis.get_title() for axis in figure.axes] == [
        f"{section}: {quantity}"
        for section in ("mnist", "digits")
        for quantity in ("ELBO joint (elbo)", "label right (given X1)")
    ]
    axis = figure.axes[0]
    assert axis.get_xscale() == "log"
    (mvae, _, bars), (cnf, _, _) = axis.containers
    assert [text.get_text() for text in axis.get_legend().texts] == ["MVAE", "MVAE-CNF"]
    assert mvae.get_xydata().tolist() == [[10.0, pytest.approx(30.1)], [100.0, 31.0]]
    assert cnf.get_ydata().tolist() == [pytest.approx(20.1), 21.0]
    (low, high) = bars[0].get_segments()[1][:, 1]
    assert (high - low) / 2 == pytest.approx(math.sqrt(2))


def test_one_seed_has_no_bars():
    figure = learning_curves(p._replace(entry=p.entry._replace(values=(1.0,))) for p in POINTS)
    assert figure.axes[0].containers[0][0].get_ydata().tolist() == [1.0, 1.0]
