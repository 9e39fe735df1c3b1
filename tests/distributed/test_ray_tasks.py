"""Detection and evaluation on a Ray cluster: what two workers find is what one process finds. `make heavy`."""

from __future__ import annotations

import json
import signal

import pytest

from qr_core import detect_heads
from qr_core.parallel.pool import Workers
from tests.helpers import GOLDEN
from tests.unit.detection.test_detect import example
from tests.unit.evaluation.sample import TINY, scores_of, timeless, write_beir

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.heavy, pytest.mark.filterwarnings("default"), pytest.mark.timeout(900)]

MODEL = str(GOLDEN / "tiny-llama")
QUERIES = {f"q{n}": f"When was harbour {n} built?" for n in range(12)}
TEXTS = {f"d{n}": ("Harbour", f"The pier of harbour {n} was built in {1800 + n}, of stone.") for n in range(12)}


def refuse(*_):
    raise AssertionError("this process does the work of the workers")


def test_detection_on_two_workers_one_of_them_killed(nodes, tmp_path, monkeypatch):
    examples = [example(n, 8) for n in range(24)]
    options = {"template": "plain", "num_heads": 3, "device": "cpu", "shuffle": True}
    detect_heads(MODEL, examples, **options).heads.save(tmp_path / "local.json")
    monkeypatch.setattr("qr_core.detection.measuring.measure", refuse)
    killed = []

    def kill(done: int, total: int) -> None:
        if not killed and 6 <= done < total:
            killed.append(done)
            nodes.workers()[0].send_signal(signal.SIGKILL)

    found = detect_heads(MODEL, examples, **options, work=tmp_path / "work", engine="ray", workers=Workers(2),
                         progress=kill)  # fmt: skip
    assert killed
    found.heads.save(tmp_path / "ray.json")
    assert (tmp_path / "ray.json").read_bytes() == (tmp_path / "local.json").read_bytes()
    assert len(list((tmp_path / "work").glob("*.safetensors"))) == 24


def test_evaluation_on_two_workers(nodes, evaluated, tmp_path, monkeypatch):
    """Through the command."""
    grades = {query: {f"d{n}": 1} for n, query in enumerate(QUERIES)}
    args = write_beir(tmp_path / "set", TEXTS, QUERIES, grades)
    rows = [
        {"query-id": query, "candidates": [f"d{(n // 2 + i) % 12}" for i in range(8)]}
        for n, query in enumerate(QUERIES)
    ]
    (tmp_path / "set" / "pools.jsonl").write_text("\n".join(map(json.dumps, rows)))
    args += [*TINY, "--systems", "qr,all,bm25"]
    local = evaluated(*args, "--out", tmp_path / "local")
    monkeypatch.setattr("qr_core.evaluation.systems.attention.attention_ranker", refuse)
    pooled = evaluated(*args, "--out", tmp_path / "ray", "--engine", "ray", "--workers", "2")
    assert timeless(pooled["systems"]) == timeless(local["systems"])
    assert timeless(pooled["differences"]) == timeless(local["differences"])
    for name in ("qr", "all", "bm25"):
        assert scores_of(tmp_path / "ray", name) == scores_of(tmp_path / "local", name)
        assert (tmp_path / "ray" / f"{name}.trec").read_bytes() == (tmp_path / "local" / f"{name}.trec").read_bytes()
