"""One scorer and many callers: threads, tasks, forks, a forward that fails, and two models side by side."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from qr_core import Document, QRScorer
from tests.architectures import FAMILIES
from tests.helpers import DOCUMENTS, GOLDEN, QUERY, in_order


def jobs_of(count: int) -> list[tuple[str, list[Document]]]:
    return [
        (f"What about number {i}?", [*DOCUMENTS[: 1 + i % 3], Document(f"Number {i} is here.")]) for i in range(count)
    ]


def test_threads_get_their_own_answers(tiny):
    jobs = jobs_of(50)
    expected = [tiny.rank(*job) for job in jobs]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda job: tiny.rank(*job), jobs)) == expected


def test_tasks_get_their_own_answers_and_leave_the_loop_free(tiny):
    jobs = jobs_of(50)
    expected = [tiny.rank(*job) for job in jobs]
    beats = 0

    async def beat():
        nonlocal beats
        while True:
            await asyncio.sleep(0.001)
            beats += 1

    async def main():
        heart = asyncio.create_task(beat())
        found = await asyncio.gather(*(tiny.arank(*job) for job in jobs))
        heart.cancel()
        return found

    assert asyncio.run(main()) == expected
    assert beats > 0


def test_cancelled_tasks_leave_the_scorer_usable(tiny):
    jobs = jobs_of(20)
    expected = [tiny.rank(*job) for job in jobs]

    async def main():
        tasks = [asyncio.create_task(tiny.arank(*job)) for job in jobs]
        await asyncio.sleep(0.01)
        for task in tasks[::2]:
            task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    found = asyncio.run(main())
    assert found[1::2] == expected[1::2]
    assert all(isinstance(f, asyncio.CancelledError) or f == e for f, e in zip(found[::2], expected[::2], strict=True))
    assert tiny.rank(*jobs[0]) == expected[0]


def test_a_failed_forward_leaves_the_model_usable(tiny, monkeypatch):
    expected = tiny.rank(QUERY, DOCUMENTS)
    own = tiny.reader.model.at_depth(0).config._attn_implementation

    def broken(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("torch.softmax", broken)
        with pytest.raises(KeyboardInterrupt):
            tiny.rank(QUERY, DOCUMENTS)
    assert tiny.reader.model.at_depth(0).config._attn_implementation == own
    assert tiny.rank(QUERY, DOCUMENTS) == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_while_the_lock_is_held_can_rank(tiny):
    expected = in_order(tiny.rank(QUERY, DOCUMENTS))
    asyncio.run(tiny.arank(QUERY, DOCUMENTS))  # the parent has a worker thread
    held, done = threading.Event(), threading.Event()

    def hold():
        with tiny.reader.model.lock:
            held.set()
            done.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(30)
    child = os.fork()
    if child == 0:  # pragma: no cover - runs in the child
        code = 1
        try:
            same = in_order(tiny.rank(QUERY, DOCUMENTS)) == expected
            same &= in_order(asyncio.run(tiny.arank(QUERY, DOCUMENTS))) == expected
            code = 0 if same else 2
        finally:
            os._exit(code)
    done.set()
    holder.join()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


FORK_IN_A_FORWARD = """
import os, sys, threading, warnings
warnings.filterwarnings("ignore")
import torch
from qr_core import QRScorer
from qr_core.attention import capture
from qr_core.attention import prefill
from tests.helpers import DOCUMENTS, QUERY, in_order

folder, where = sys.argv[1:]
options = {"template": "plain", "device": "cpu", "dtype": "float32", "cache_bytes": 0}
scorer = QRScorer.from_pretrained(folder, "3-1,1-2", **options)
expected = in_order(scorer.rank(QUERY, DOCUMENTS))
reached, go_on = threading.Event(), threading.Event()
owner, name = (capture, "attention_weights") if where == "query pass" else (prefill._FillingCache, "update")
original = getattr(owner, name)
def waiting(*args, **kwargs):
    if threading.current_thread() is other:
        reached.set()
        go_on.wait(60)
    return original(*args, **kwargs)
other = threading.Thread(target=lambda: scorer.rank(QUERY, DOCUMENTS))
setattr(owner, name, waiting)
other.start()
assert reached.wait(60)
child = os.fork()
if child == 0:
    os._exit(0 if in_order(scorer.rank(QUERY, DOCUMENTS)) == expected else 3)
_, status = os.waitpid(child, 0)
go_on.set()
other.join()
assert in_order(scorer.rank(QUERY, DOCUMENTS)) == expected
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("where", ["prefill", "query pass"])
@pytest.mark.parametrize("family", ["llama", "phi3-straddling"])
def test_a_fork_in_the_middle_of_a_forward(save_tiny, where, family):
    """With two threads in the parent; its hooks and settings of the moment do not reach the child's results."""
    command = [sys.executable, "-c", FORK_IN_A_FORWARD, str(save_tiny(FAMILIES[family]())), where]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    assert subprocess.run(command, env=environment, timeout=120, cwd=Path(__file__).parents[2]).returncode == 0


def test_two_scorers_of_different_models_side_by_side(tiny):
    other = QRScorer.from_pretrained(GOLDEN / "tiny-qwen2", "1-1,3-2", template="chat", device="cpu")
    expected = {s.model_name: s.rank(QUERY, DOCUMENTS) for s in (tiny, other)}
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda s: s.rank(QUERY, DOCUMENTS), [tiny, other] * 6))
    assert all(ranking == expected[ranking.model] for ranking in found)
