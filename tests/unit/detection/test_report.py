"""The report of a detection, as data, in the terminal, and in files."""

from __future__ import annotations

import json
import sys

import pytest
from rich.console import Console

from qr_core import InputError, detect_heads
from qr_core.detection import report
from tests.unit.detection.planted import EXAMPLES


@pytest.fixture(scope="module")
def detection(planted):
    return detect_heads(planted[0], EXAMPLES, num_heads=2, device="cpu")


def printed(found) -> str:
    console = Console(width=120)
    with console.capture() as written:
        for part in report.shown(found):
            console.print(part)
    return written.get()


def test_what_is_reported_is_plain_data_and_is_shown(detection):
    found = report.trade_offs(detection, seed=1)
    assert json.loads(json.dumps(found)) == found
    assert found["used"] == len(EXAMPLES)
    assert [row["deepest"] for row in found["depth"]] == [0, 1]
    assert [row["examples"] for row in found["examples"]] == [4, 8]
    assert 0 <= found["split_half_overlap"]["mean"] <= 1
    text = printed(found)
    assert "deepest layer" in text
    assert "overlap with all" in text
    assert "by chance" in text
    assert printed({}) == ""


def test_files_beside_a_head_set(detection, tmp_path):
    found = report.trade_offs(detection)
    report.write_beside(tmp_path / "heads.json", detection.heads, found)
    assert json.loads((tmp_path / "heads.report.json").read_text()) == found
    for ending in (".png", ".depth.png"):
        assert (tmp_path / f"heads{ending}").read_bytes().startswith(b"\x89PNG")
    report.write_beside(tmp_path / "copy.json", detection.heads, {})
    assert sorted(path.name for path in tmp_path.glob("copy*")) == ["copy.png"]


def test_a_report_stands_where_no_picture_can_be_drawn(detection, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match="eval"):
        report.write_beside(tmp_path / "heads.json", detection.heads, report.trade_offs(detection))
    assert [path.name for path in tmp_path.iterdir()] == ["heads.report.json"]
