"""Computed sizes are those of the formulas, and of the tensors."""

from dataclasses import replace

import pytest

from benchmarks.common.sizes import affordable, enlarged, sizes
from benchmarks.common.workloads import WORKLOADS, Workload, select

D, M, S, B = 6, 9, 4, 10


@pytest.mark.parametrize("gated", [True, False])
def test_one_hidden_layer(gated):
    layer_type = "squash" if gated else "ignore"
    size = sizes(Workload("", D, (M,), layer_type, "softplus", B, S, ""))
    rows = S if gated else 1  # ignore knows no time
    weight, vectors = 2 * D * M, rows * ((1 + gated) * (M + D) + M)
    assert size.states == 4 * (S - 1) * B * D
    assert size.packed == 4 * (2 * weight + vectors)
    parameters = 2 * D * M + (1 + 2 * gated) * (M + D)
    assert size.outputs == 4 * (2 * B * D + B + parameters)
    assert size.held == size.states + size.packed


def test_the_table_of_a_two_hidden_layer_trace_is_held_for_one_step_and_packed_twice():
    size = sizes(Workload("", D, (M, M), "squash", "softplus", B, S, ""))
    matrices, vectors = 2 * D * M + M * M + M * M, 2 * S * (2 * M + D)
    assert size.packed == 4 * (2 * matrices + vectors)


def test_three_hidden_layers_have_no_trace_table():
    size = sizes(Workload("", D, (M, M, M), "ignore", "tanh", B, S, ""))
    assert size.packed == 4 * (2 * (2 * D * M + 2 * M * M) + 3 * M + D)


def test_what_is_kept():
    size = sizes(Workload("", D, (M, 7), "squash", "softplus", B, S, ""), "activations")
    assert size.kept == 4 * S * B * (M + 7 + 7)  # W y of both, and M phi'
    assert size.held == size.states + size.kept + size.packed


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: w.name)
def test_enlarged_takes_what_was_asked_and_no_more(workload):
    one_row = 4 * workload.dim * max(workload.steps - 1, 1)
    got = one_row * enlarged(workload, 10**7).batch
    assert 10**7 <= got < 10**7 + one_row


def test_the_peer_gets_fewer_rows_only_where_it_must():
    (workload,) = select(["W2"])
    assert affordable(workload, 10**12) == workload
    assert affordable(workload, 1).batch == 1
    fewer = affordable(workload, 5 * 10**7)
    assert 1 < fewer.batch < workload.batch
    assert replace(fewer, batch=workload.batch) == workload
