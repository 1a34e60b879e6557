"""The GPU bench: every side runs, the table and the lines are whole, a wrong answer is not clocked. On the CPU, where no figure counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bench import gpu
from bench.roofline import Prediction
from compress_rec.errors import CompressRecError


def test_every_side_runs_and_the_lines_are_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "SAMPLE", 0.01)
    kept = tmp_path / "gpu.jsonl"
    assert gpu.main(["--quick", "--device=cpu", f"--results={kept}"]) == 0
    machine, *rows = [json.loads(line) for line in kept.read_text().splitlines()]
    assert set(machine["limits"]) == {"memory", "cache", "float32", "bfloat16"}
    assert [(one["op"], one["shape"]["kind"]) for one in rows] == [
        ("cosine_top_k", "float32"), ("cosine_top_k", "int8"), ("low_rank_linear", "float32"), ("low_rank_linear", "bfloat16"),
        ("low_rank_feed_forward", "bfloat16"),
    ]  # fmt: skip
    for one in rows:
        assert one["ratio"] == pytest.approx(one["medians"]["torch"] / one["medians"]["ours"])
        assert one["fraction"] == pytest.approx(one["predicted"] / one["medians"]["ours"])
        assert all(len(values) == 3 for values in one["samples"].values())
    printed = capsys.readouterr().out
    assert printed.count("| cosine_top_k |") == 2
    assert printed.count("| low_rank_linear |") == 2


def test_without_a_device_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    assert "torch sees none" in capsys.readouterr().err


def test_a_wrong_answer_is_not_clocked() -> None:
    sides = {"ours": lambda: torch.ones(3), "torch": lambda: torch.tensor([1.0, 1.0, 1.1])}
    with pytest.raises(CompressRecError, match="ours is off torch's answer by"):
        gpu.check("low_rank_linear", sides, "float32")


def test_the_best_peer_and_the_fraction() -> None:
    samples = {"ours": [2.0, 2.0, 4.0], "torch": [3.0], "other": [1.0], "dense": [0.1]}
    one = gpu.row("low_rank_linear", {"kind": "float32"}, samples, Prediction(1e-3, 4e-3, "memory"), "cuda")
    assert (one["best_peer"], one["ratio"], one["predicted"], one["fraction"], one["predicted_gain"]) == ("other", 0.5, 1.0, 0.5, 4.0)
