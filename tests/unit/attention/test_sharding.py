"""A model whose heads are spread over two processes gives the numbers of one that is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from qr_core import InputError, ModelLoadError, QRScorer
from tests.helpers import GOLDEN
from tests.sharded import CASES, results

ROOT = Path(__file__).parents[3]


def test_two_processes_give_the_numbers_of_one(tmp_path):
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run(
        [sys.executable, *run, "-m", "tests.sharded", str(tmp_path)],
        check=True,
        timeout=280,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
    )
    both = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert both[0] == both[1]
    for case, found in zip(CASES, both[0], strict=True):
        alone = results(*case, tp_size=None)
        for ours, theirs in zip(found["scores"], alone["scores"], strict=True):
            assert ours == pytest.approx(theirs, abs=2e-6 * (100 if case[1] == "all" else 1)), case
        assert len({round(score, 4) for score in alone["scores"][0]}) == 3
        assert (found["windows"], found["pruned"]) == (alone["windows"], alone["pruned"])


def test_processes_that_were_not_started(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    scorer = QRScorer.from_pretrained(GOLDEN / "tiny-llama", "2-1", template="plain", device="cpu", tp_size=2)
    with pytest.raises(ModelLoadError, match="tp_size is 2 and 1 processes were started: use torchrun"):
        scorer.rank("q", ["a"])


def test_options_that_do_not_go_together():
    with pytest.raises(InputError, match="either device_map or tp_size"):
        QRScorer.from_pretrained(GOLDEN / "tiny-llama", "2-1", template="plain", tp_size=2, device_map="auto")
    with pytest.raises(InputError, match="tp_size is 0"):
        QRScorer.from_pretrained(GOLDEN / "tiny-llama", "2-1", template="plain", tp_size=0)
