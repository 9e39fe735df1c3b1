"""`tools/compare_checkouts.py` on a few documents, in this process; `python tools/compare_checkouts.py` for real."""

from __future__ import annotations

import argparse
import json

import pytest

import qr_core
from tools import compare_checkouts as tool


def test_measures_and_prints_ratios(tmp_path, capsys):
    asked = argparse.Namespace(
        variants=",".join(tool.VARIANTS),
        documents=2,
        queries=3,
        held=4,
        rounds=1,
        repeats=1,
        clock="wall",
        device="cpu",
    )
    given = tool.prepared("embedded", tmp_path, asked) | {"held": asked.held}
    found = tool.measure(json.loads(json.dumps(given)))
    assert found["package"] == qr_core.__file__
    assert list(found["variants"]) == list(tool.VARIANTS)
    for one in found["variants"].values():
        assert len(one["scores"]) == 2
        assert one["passes"] >= 1
    passes = {name: one["passes"] for name, one in found["variants"].items()}
    assert passes["joint"] > passes["second"]
    assert passes["independent-cold"] > passes["independent-second"]
    assert min(found["held"].values()) > 100_000
    other = json.loads(json.dumps(found))
    for one in found["variants"].values():
        one["seconds"] = 2.0
    for one in other["variants"].values():
        one["seconds"] = 3.0
        one["scores"][0] += 0.25
    tool.show("embedded", {"old": [found], "new": [other]}, asked)
    printed = capsys.readouterr().out
    assert printed.count("| 2.0000 | 3.0000 | 1.500 | 1.500, 1.500 |") == len(tool.VARIANTS)
    assert printed.count("| 2.5e-01 |") == len(tool.VARIANTS)
    assert "held after one rank of 4 documents" in printed


def test_another_checkout_than_asked_for_is_not_measured(tmp_path, monkeypatch):
    answer = json.dumps({"package": "/elsewhere/qr_core/__init__.py"})
    monkeypatch.setattr(tool.subprocess, "run", lambda *_, **__: argparse.Namespace(stdout=answer + "\n"))
    with pytest.raises(RuntimeError, match="in place of"):
        tool.measured(tmp_path, {})
