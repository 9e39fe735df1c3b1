"""Bulk ranking on a Ray cluster: `make heavy`. Workers are killed and nodes taken away; every job is there once."""

from __future__ import annotations

import json
import os
import random
import signal
import time

import pytest

from qr_core import ModelLoadError
from qr_core.bulk import run as distributed
from qr_core.bulk.ranker import Ranker
from qr_core.bulk.run import rank_file
from qr_core.errors import StoppedError
from qr_core.parallel import pool as ray_pool
from qr_core.parallel.pool import Workers
from tests.helpers import GOLDEN

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.heavy, pytest.mark.filterwarnings("default"), pytest.mark.timeout(900)]

SCORER = {"model": str(GOLDEN / "tiny-llama"), "heads": "2-1,3-4", "template": "plain", "device": "cpu"}
JOBS, PART = 72, 3


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """A file of jobs, what each part's file should hold, and how long one process takes."""
    folder = tmp_path_factory.mktemp("jobs")
    draw = random.Random(0)
    words = ["lamp", "oven", "bridge", "harbour", "bread", "arch", "keeper", "flour", "stone", "night"]
    lines = []
    for number in range(JOBS):
        documents = [" ".join(draw.choices(words, k=40)) for _ in range(12)]
        lines.append(json.dumps({"id": number, "query": f"who lit lamp {number}?", "documents": documents}))
    lines[7] = "{broken"
    (folder / "jobs.jsonl").write_text("\n".join(lines))
    began = time.monotonic()
    run(folder, "local", engine="local")
    print(f"\none process, no Ray: {JOBS / (time.monotonic() - began):.1f} jobs/s, loading included")
    return folder


def run(folder, name, **options) -> distributed.Summary:
    return rank_file(
        folder / "jobs.jsonl",
        folder / name,
        **{"scorer": SCORER, "format": "jsonl", "part_size": PART, "engine": "ray", **options},
    )


def same(folder, name) -> None:
    """Each part is, byte for byte, what one process makes of it; each job is in one of them."""
    expected = sorted((folder / "local").glob("part-*"))
    found = sorted((folder / name).glob("part-*"))
    assert [path.name for path in found] == [path.name for path in expected]
    numbers = []
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.read_bytes() == theirs.read_bytes()
        numbers += [json.loads(line)["job"] for line in ours.read_text().splitlines()]
    assert numbers == list(range(JOBS))


def test_throughput_of_one_and_two_workers(nodes, jobs):
    """Measured from the first part that is done to the last, so that loading does not count."""
    for count in (1, 2):
        at: list[tuple[float, int]] = []

        def note(done: int, _: int, at=at) -> None:
            at.append((time.monotonic(), done))

        run(jobs, f"workers-{count}", workers=Workers(count), progress=note)
        (began, first), (ended, last) = at[count], at[-1]
        print(f"{count} workers: {(last - first) / (ended - began):.1f} jobs/s, {os.cpu_count()} CPU cores")
        same(jobs, f"workers-{count}")


def test_a_worker_killed_in_mid_run(nodes, jobs):
    killed = []

    def kill(done: int, total: int) -> None:
        if not killed and 4 * PART <= done < total:
            victim = nodes.workers()[0]
            victim.send_signal(signal.SIGKILL)
            killed.append((done, victim.pid))

    summary = run(jobs, "killed", workers=Workers(2), progress=kill)
    assert killed[0][0] < JOBS // 2
    same(jobs, "killed")
    assert (summary.jobs, summary.failed, summary.resumed) == (JOBS, 1, 0)


def test_a_node_removed_in_mid_run(nodes, jobs):
    removed = []

    def remove(done: int, total: int) -> None:
        if not removed and 4 * PART <= done < total:
            removed.append(done)
            nodes.remove()

    try:
        summary = run(jobs, "removed", workers=Workers(2), progress=remove)
    finally:
        nodes.nodes.append(nodes.add())
    assert removed[0] < JOBS // 2
    same(jobs, "removed")
    assert (summary.jobs, summary.failed) == (JOBS, 1)


def test_a_run_that_ended_goes_on(nodes, jobs):
    """What one engine began another may finish."""

    def end(done: int, total: int) -> None:
        if done >= 6 * PART:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(jobs, "ended", engine="local", progress=end)
    assert run(jobs, "ended", workers=Workers(2)).resumed == 6
    same(jobs, "ended")


def test_a_part_that_kills_its_workers_costs_that_part(nodes, jobs, monkeypatch):
    class Deadly(Ranker):
        def __call__(self, part, lines):
            if part.number == 3:
                os._exit(1)
            return Ranker.__call__(self, part, lines)

    def ranking(options):
        ranker = Deadly(options)
        return lambda item: ranker(*item)

    with monkeypatch.context() as patch:
        patch.setattr(distributed, "_ranking", ranking)
        patch.setattr(ray_pool, "RETRIES", 1)
        with pytest.raises(StoppedError, match=rf"1 of {JOBS // PART} parts are not done \(3\)"):
            run(jobs, "deadly", workers=Workers(1))
    assert run(jobs, "deadly", engine="local").resumed == JOBS // PART - 1
    same(jobs, "deadly")


def test_a_model_that_does_not_load_ends_the_run(nodes, jobs, tmp_path):
    """It is there when the run begins, so that a worker finds out."""
    import shutil

    shutil.copytree(SCORER["model"], tmp_path / "model")
    for weights in (tmp_path / "model").glob("*.safetensors"):
        weights.write_bytes(b"\0" * 64)
    with pytest.raises(ModelLoadError, match="cannot load the weights of"):
        run(jobs, "unloadable", workers=Workers(1), scorer={**SCORER, "model": str(tmp_path / "model")})
