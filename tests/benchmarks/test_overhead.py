"""The overhead report runs, and its floor is one: it does nothing but what PyTorch requires."""

import torch

from benchmarks import overhead


def test_report(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["overhead", "--rounds", "2"])
    overhead.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(overhead.LAYERS) + 1
    assert all(line.count(" us (") == 2 for line in lines[2:])


def test_calls_repeat():
    seen = []
    leaf = torch.ones(1, 2, requires_grad=True)

    def call():
        seen.append(torch.is_grad_enabled())
        return leaf * 2, leaf[:, :1] * 3

    forward, both = overhead.calls(call, [leaf])
    forward()
    both()
    assert seen == [False] * overhead.REPEATS + [True] * overhead.REPEATS
