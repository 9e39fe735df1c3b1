"""The folder of results: kills, and changes of mind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest

from qr_core import InputError, ModelLoadError
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


@pytest.fixture
def done(tmp_path):
    """A finished run of two parts; a function that runs it again."""
    jobs = [{"query": f"who lit {n}?", "documents": ["a lamp", "an oven"]} for n in range(3)]
    write(tmp_path / "jobs.jsonl", [*jobs, {"query": ""}])

    def again():
        return rank_file(tmp_path / "jobs.jsonl", tmp_path / "out", scorer=SCORER, part_size=3, format="trec")

    again()
    return again


def bytes_in(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


@pytest.mark.parametrize("name", ["part-00000.trec", "part-00001.errors.jsonl"])
def test_a_part_that_is_damaged_is_done_again(tmp_path, done, name):
    """Of the right size: one bit is another."""
    before = bytes_in(tmp_path / "out")
    raw = bytearray(before[name])
    raw[len(raw) // 2] ^= 1
    (tmp_path / "out" / name).write_bytes(raw)
    assert done().resumed == 1
    assert bytes_in(tmp_path / "out") == before


def broken(note, **changes):
    return json.dumps({**json.loads(note), **changes}).encode()


NOTES = {
    "deep": lambda note: b"[" * 10**5,
    "list": lambda note: b"[1]",
    "bytes": lambda note: b"\xff\0",
    "number": lambda note: b"9" * 5000,
    "no failed": lambda note: b'{"part": 0, "jobs": 3, "bytes": 1}',
    "failed": lambda note: broken(note, failed="all"),
    "more failed": lambda note: broken(note, failed=4),
    "part": lambda note: broken(note, part="0"),
    "parts": lambda note: broken(note, part=[0]),
    "far": lambda note: broken(note, part=10**30),
    "before": lambda note: broken(note, part=-1),
    "true": lambda note: broken(note, part=False),
    "jobs": lambda note: broken(note, jobs=1),
}


@pytest.mark.parametrize("damage", NOTES)
def test_notes_that_are_damaged_cost_their_part_alone(tmp_path, done, damage):
    before = bytes_in(tmp_path / "out")
    first, second = before["parts.jsonl"].splitlines()
    (tmp_path / "out" / "parts.jsonl").write_bytes(NOTES[damage](first) + b"\n" + second + b"\n")
    assert done().resumed == 1
    assert bytes_in(tmp_path / "out") == before


@pytest.mark.parametrize("name", ["job.json", "parts.jsonl", "part-00000.trec", ".lock"])
def test_a_folder_in_place_of_a_file_is_one_line(tmp_path, done, name):
    (tmp_path / "out" / name).unlink(missing_ok=True)
    (tmp_path / "out" / name / "below").mkdir(parents=True)
    with pytest.raises(InputError, match=r"out") as told:
        done()
    assert "\n" not in str(told.value)


def test_what_a_kill_before_the_first_part_left_is_no_run(tmp_path):
    """Half a note, or the note of a command whose model could not be loaded: the corrected one is not refused."""
    write(tmp_path / "jobs.jsonl", jobs_of(1))
    out = tmp_path / "out"
    out.mkdir()
    (out / "job.json.tmp").write_text("{")
    rank_file(tmp_path / "jobs.jsonl", out, scorer=SCORER)
    assert {path.name for path in out.iterdir()} - {".lock"} == {"job.json", "parts.jsonl", "part-00000.parquet"}
    with pytest.MonkeyPatch.context() as patch:

        def fails(*_):
            raise ModelLoadError("no weights")

        patch.setattr("qr_core.bulk.ranker.Ranker.__call__", fails)
        with pytest.raises(ModelLoadError):
            rank_file(tmp_path / "jobs.jsonl", tmp_path / "other", scorer=SCORER)
    rank_file(tmp_path / "jobs.jsonl", tmp_path / "other", scorer={**SCORER, "heads": "2-1"})
