"""Training text: what is read from the files."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys

import pytest

from qr_core.training import data


def test_the_same_files_give_the_same_queries(training_data):
    """In another process too: what is read does not hang on the order of sets."""
    script = (
        "import sys; from qr_core.training import data; from pathlib import Path; print(data.read(Path(sys.argv[1])))"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", script, str(training_data)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in "12"
    ]
    assert runs[0] == runs[1]


def test_meetings_are_read(training_data):
    found = data.read(training_data)
    meetings, asked = (
        json.loads(gzip.decompress((training_data / "qmsum_train" / f"{name}.json.gz").read_bytes()))
        for name in ("meetings", "queries")
    )
    said = {(row["meeting"], p["idx"]): p["paragraph_text"] for row in meetings for p in row["paragraphs"]}
    queries = [query for query in found.queries if query.source == "qmsum" and query.asked]
    for query, row in zip(queries, asked, strict=True):
        assert query.text == row["question"]
        assert {found.passages[place].group for place in query.golds} <= {query.group}
        known = row["gt_docs"] if len(row["gt_docs"]) < 5 else []  # more are left to the teacher
        expected = " ".join(said[row["meeting"], key] for key in known)
        assert " ".join(found.passages[place].text for place in query.golds) == expected
    assert {len(query.golds) for query in queries} == {0, 1, 3}  # a long paragraph is two passages
    assert len({query.group for query in queries}) == len(meetings)


def test_no_data_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"qa\.jsonl\.gz"):
        data.read(tmp_path)
