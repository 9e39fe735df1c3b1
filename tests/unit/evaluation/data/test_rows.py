"""Whatever a file holds, a reader makes work of it or says what is wrong."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qr_core import InputError
from qr_core.evaluation.data.clipper import read_clipper
from qr_core.evaluation.data.longmemeval import read_longmemeval
from qr_core.evaluation.data.multihop import read_multihop
from qr_core.evaluation.work import Work
from tests.unit.evaluation.data.samples import COLUMNS, FLAT, HOTPOT, LONGMEMEVAL, MUSIQUE, save

READERS = {
    "hotpot": (read_multihop, [HOTPOT]),
    "columns": (read_multihop, [COLUMNS]),
    "musique": (read_multihop, [MUSIQUE, MUSIQUE | {"answerable": False}]),
    "longmemeval": (read_longmemeval, LONGMEMEVAL),
    "clipper": (lambda path: read_clipper(path, True), FLAT),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not valid JSON"),
        (b"[" * 100_000, "is not valid JSON"),
        (b'[{"id": ' + b"9" * 5000 + b"}]", "is not valid JSON"),
        (b"[1]", "is not a list of objects"),
        (b"[]", "holds no"),
        (b"\xff\xfe", "is not UTF-8"),
    ],
)
def test_files_that_are_something_else(tmp_path, reader, content, words):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=words):
        READERS[reader][0](tmp_path / "a.json")
    (tmp_path / "a.json.gz").write_bytes(content or b"{")
    with pytest.raises(InputError, match="cannot read"):
        READERS[reader][0](tmp_path / "a.json.gz")
    with pytest.raises(InputError, match="cannot read"):
        READERS[reader][0](tmp_path / "absent.json")


@pytest.mark.parametrize("reader", ["hotpot", "longmemeval"])
def test_lines_that_are_something_else(tmp_path, reader):
    for line, words in ((b'{"a":' * 100_000, "not valid JSON"), (b"7", "not a JSON object")):
        (tmp_path / "a.jsonl").write_bytes(b"{}\n" + line)
        with pytest.raises(InputError, match=f"line 2: {words}"):
            READERS[reader][0](tmp_path / "a.jsonl")


def places(value, path=()):
    """Paths to every value within a JSON value."""
    if path:
        yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


def changed(rows, path, value):
    rows = copy.deepcopy(rows)
    inside = rows
    for key in path[:-1]:
        inside = inside[key]
    if value is ...:
        del inside[path[-1]]
    else:
        inside[path[-1]] = value
    return rows


def work_or_input_error(reader, path) -> None:
    try:
        work = reader(path)
    except InputError as error:
        if not str(error).startswith(f"{path}"):
            raise AssertionError("the file is not named") from error
        return
    assert isinstance(work, Work)
    ids = [candidates.query_id for candidates in work.candidate_sets]
    assert len(set(ids)) == len(ids)
    assert set(work.expected) == set(ids)
    for candidates in work.candidate_sets:
        keys = [document.id for document in candidates.documents]
        assert len(set(keys)) == len(keys)
        assert set(work.qrels.get(candidates.query_id, {})) <= set(keys)
        assert candidates.query_id not in work.qrels or work.qrels[candidates.query_id]
        assert all(isinstance(text, str) for d in candidates.documents for text in (d.text, d.title or "", d.id))
        wanted = work.expected[candidates.query_id]
        assert all(isinstance(text, str) for text in (candidates.query, wanted.question, wanted.answer, wanted.kind))


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["0", "\ud800", 10**400])
)


JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("reader", READERS)
def test_changed_entries_give_work_or_an_input_error(tmp_path, reader, data):
    read, valid = READERS[reader]
    values = st.just(...) | JSON | st.sampled_from([value for row in valid for value in row.values()])
    rows = valid
    for _ in range(data.draw(st.integers(1, 3))):
        where = data.draw(st.sampled_from(list(places(rows))))
        rows = changed(rows, where, data.draw(values))
        if not rows:
            break
    work_or_input_error(read, save(tmp_path / "a.json", rows))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("depth", [50, 970, 5000], ids=["shallow", "almost too deep to parse", "too deep"])
def test_deep_values(tmp_path, reader, depth):
    read, rows = READERS[reader]
    for where in places(rows):
        text = json.dumps(changed(rows, where, "deep")).replace('"deep"', "[" * depth + "]" * depth)
        (tmp_path / "a.json").write_text(text)
        work_or_input_error(read, tmp_path / "a.json")
