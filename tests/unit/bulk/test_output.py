"""The folder of results: kills, and changes of mind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from qr_core import InputError
from qr_core.bulk.run import rank_file
from tests.unit.bulk.jobs import OPTIONS, SCORER, jobs_of, rows_in, same, write


def test_a_run_goes_on_where_it_was_killed(tmp_path):
    """SIGKILL in the middle; finished parts are not written again, a torn one is."""
    jobs = jobs_of(12)
    write(tmp_path / "jobs.jsonl", jobs)
    code = (
        "import sys, time\n"
        "from qr_core.bulk import ranker as bulk\n"
        "from qr_core.cli import main as cli\n"
        "rank = bulk.Ranker.__call__\n"
        "def slow(self, part, lines):\n"
        "    if part.number == 2:\n"
        "        time.sleep(600)\n"
        "    return rank(self, part, lines)\n"
        "bulk.Ranker.__call__ = slow\n"
        "cli.main()\n"
    )
    out = tmp_path / "out"
    args = ["rank-many", "--input", str(tmp_path / "jobs.jsonl"), "--output", str(out), "--part-size", "3", *OPTIONS]
    process = subprocess.Popen([sys.executable, "-c", code, *args])
    end = time.monotonic() + 240
    while not (out / "parts.jsonl").exists() or (out / "parts.jsonl").read_bytes().count(b"\n") < 2:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    with pytest.raises(InputError, match="another run is writing"):
        rank_file(tmp_path / "jobs.jsonl", out, scorer=SCORER, part_size=3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with (out / "parts.jsonl").open("ab") as notes:
        notes.write(b'{"part": 2, "jo')
    (out / "part-00002.parquet.tmp").write_bytes(b"torn")
    kept = out / "part-00001.parquet"
    (out / "part-00000.parquet").write_bytes(b"torn")  # of another size than its note says
    before = kept.stat().st_mtime_ns, kept.stat().st_ino
    summary = rank_file(tmp_path / "jobs.jsonl", out, scorer=SCORER, part_size=3)
    assert (kept.stat().st_mtime_ns, kept.stat().st_ino) == before
    assert (summary.resumed, summary.parts) == (1, 4)
    same(rows_in(out), jobs)
    again = rank_file(tmp_path / "jobs.jsonl", out, scorer=SCORER, part_size=3)
    assert (again.resumed, again.jobs, again.failed) == (4, 12, 0)


def test_another_input_or_other_options_are_refused(tmp_path):
    write(tmp_path / "jobs.jsonl", jobs_of(3))
    rank_file(tmp_path / "jobs.jsonl", tmp_path / "out", scorer=SCORER)
    with pytest.raises(InputError, match=r"another run \(top k differ\)"):
        rank_file(tmp_path / "jobs.jsonl", tmp_path / "out", scorer=SCORER, top_k=1)
    with pytest.raises(InputError, match="heads, head list differ"):
        rank_file(tmp_path / "jobs.jsonl", tmp_path / "out", scorer={**SCORER, "heads": "2-1"})
    write(tmp_path / "jobs.jsonl", jobs_of(4))
    with pytest.raises(InputError, match="input, jobs differ"):
        rank_file(tmp_path / "jobs.jsonl", tmp_path / "out", scorer=SCORER)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(InputError, match="is not empty and holds no run"):
        rank_file(tmp_path / "jobs.jsonl", tmp_path / "mine", scorer=SCORER)
