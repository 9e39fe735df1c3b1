"""Very large inputs from end to end, each in a process of its own with bounded memory (`make slow`)."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[2]
ANSWER = "The bell tower of Carrow was repaired in 1902."


def qrhead(*args: str, gibibytes: int) -> tuple[dict, float, float]:
    """The JSON answer, seconds and peak memory (MiB) of one command that may take so much address space."""

    def bound():
        resource.setrlimit(resource.RLIMIT_DATA, (gibibytes * 2**30, gibibytes * 2**30))

    clock = time.perf_counter()
    command = [sys.executable, "-m", "qr_core.cli.main", *args, "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, preexec_fn=bound)
    assert done.returncode == 0, done.stderr
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return json.loads(done.stdout), time.perf_counter() - clock, peak


def test_a_file_of_one_megabyte_is_pruned(tmp_path):
    lines = [
        f"Room {n} of the house has a bed for {n % 7} guests, and its window looks over the yard."
        for n in range(12_000)
    ]
    lines[7_000] = ANSWER
    path = tmp_path / "house.txt"
    path.write_text("\n\n".join(lines))
    assert path.stat().st_size > 10**6
    query = "When was the bell tower repaired?"
    found, seconds, peak = qrhead("prune", "--query", query, "--file", str(path), "--max-tokens", "200", gibibytes=6)
    print(f"\n1 MB: {found['total_tokens']} tokens, {found['windows']} windows, {seconds:.0f} s, peak {peak:.0f} MiB")
    assert ANSWER in found["text"]
    assert found["kept_tokens"] <= 200


def test_a_hundred_thousand_documents_are_ranked(tmp_path):
    path = tmp_path / "docs.txt"
    documents = [f"Room {n} has a bed." for n in range(100_000)]
    documents[71_234] = ANSWER
    path.write_text("\n".join(documents))
    query = "When was the bell tower repaired?"
    asked = ("--query", query, "--docs", str(path), "--model", "embedded-fast")
    found, seconds, peak = qrhead("rank", *asked, gibibytes=12)
    print(f"\n100,000 documents: {found['windows']} windows, {seconds:.0f} s, peak {peak:.0f} MiB")
    assert found["hits"][0]["index"] == 71_234
    assert len(found["hits"]) == 100_000


GROWTH = """
import random
from qr_core.cli.main import main
try:
    main()
except SystemExit:
    pass
from qr_core import QRScorer
from qr_core.parallel.usage import resident
drawn = random.Random(1)
words = ["".join(drawn.choices("abcdefghijklmnop", k=6)) for _ in range(5000)]
scorer = QRScorer.from_pretrained(cache_bytes=2**24)
for number in range(121):
    scorer.rank("what is this", [" ".join(drawn.choices(words, k=100)) for _ in range(8)])
    if number in (60, 120):
        print(resident())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_stays_where_it_is_over_different_requests():
    made = subprocess.run([sys.executable, "-c", GROWTH, "--version"], capture_output=True, text=True, check=True)
    first, last = map(int, made.stdout.split()[-2:])
    print(f"resident after 60 requests {first >> 20} MiB, after 120 {last >> 20} MiB")
    assert last - first < 80 * 2**20
