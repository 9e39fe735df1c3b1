"""`qrhead bench` as a command: its options, its files, and what it refuses. No test asserts a time."""

from __future__ import annotations

import json
import sys

import pytest

from qr_core.benchmark.variants import VARIANTS
from qr_core.cli.bench import bench


def test_the_embedded_model(run):
    """In its own layout, beside models of other kinds."""
    options = ["--model", "embedded", "--lengths", "300", "--variants", "late-cold,late-second,cross-encoder"]
    options += ["--documents", "3", "--repeats", "1", "--no-memory", "--device", "cpu"]
    status, out, err = run("bench", *options, "--format", "json")
    assert status == 0, err
    found = json.loads(out)
    assert (found["conditions"]["model"], found["conditions"]["layout"]) == ("qrhead-mini", "late")
    assert list(found["lengths"][0]["variants"]) == ["cross-encoder", "late-cold", "late-second"]
    assert list(found["documents"][0]["variants"]) == ["late-cold", "late-warm"]
    assert {"late cold / cross-encoder", "late second / cross-encoder"} <= set(found["lengths"][0]["ratios"])
    status, out, _ = run("bench", *options)
    assert (status, "late layout by number of documents" in out) == (0, True)


def test_command(run, tmp_path):
    """An embedded model, and the files it leaves."""
    options = [
        "--model",
        "embedded-fast",
        "--lengths",
        "300",
        "--sides",
        "plain,joint",
        "--repeats",
        "1",
        "--no-memory",
    ]
    status, out, err = run("bench", *options, "--device", "cpu", "--format", "json", "--out", str(tmp_path / "out"))
    assert status == 0
    printed = json.loads(out)
    assert printed["conditions"]["model"] == "qrhead-mini-fast"
    assert list(printed["lengths"][0]["variants"]) == list(printed["lengths"][0]["sides"]) == ["plain", "joint"]
    assert json.loads((tmp_path / "out" / "bench.json").read_text()) == printed
    assert "joint / plain" in (tmp_path / "out" / "bench.md").read_text()
    assert (tmp_path / "out" / "bench.png").stat().st_size > 1000
    assert "round 1 of 1: plain" in err


def test_help_names_every_variant():
    assert bench.__doc__ is not None
    assert all(name in bench.__doc__ for name in VARIANTS)


def test_a_hundred_queries_in_the_independent_layout(run):
    options = ["--layers", "3", "--deepest", "1", "--hidden", "128", "--lengths", "300", "--variants", "many"]
    options += ["--layout", "independent", "--device", "cpu", "--dtype", "float32"]
    status, out, _ = run("bench", *options, "--repeats", "1", "--no-memory")
    assert status == 0
    assert "layout independent" in out
    for words in ("many-warm", "independent-second", "100 queries / 1", "forward passes", "held MiB"):
        assert words in out


def test_table_on_the_terminal(run):
    options = ["--layers", "3", "--deepest", "1", "--hidden", "128", "--lengths", "300", "--variants", "joint,second"]
    status, out, _ = run("bench", *options, "--repeats", "1", "--no-memory", "--device", "cpu", "--dtype", "float32")
    assert status == 0
    assert "random weights: 3 layers" in out
    assert "second / joint" in out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--layers", "4", "--deepest", "4"], "layer 4 does not exist"),
        (["--hidden", "200"], "multiple of 128"),
        (["--dtype", "int8"], "dtype 'int8'"),
        (["--lengths", "many"], "--lengths 'many'"),
        (["--lengths", "20"], "at least 256 tokens"),
        (["--documents", "0"], "at least one document"),
        (["--depths", "3,16"], "layer 16 does not exist"),
        (["--sides", "joint,fast"], "variant is 'fast': use one of plain"),
        (["--heads", "40-1"], "outside the model"),
        (["--heads", "llama-3.1-8b-instruct/nq"], "outside the model"),
        (["--model", "no/such/folder/"], "no/such/folder"),
    ],
)
def test_bad_options(run, args, words):
    status, _, err = run("bench", "--device", "cpu", *args)
    assert status == 2
    assert words in err


def test_a_missing_matplotlib_names_the_command(monkeypatch, run, tmp_path):
    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    status, _, err = run("bench", "--out", str(tmp_path / "out"))
    assert status == 2
    assert "pip install 'qrhead[eval]'" in err
    assert not (tmp_path / "out").exists()
