"""Readers of the evaluation's tasks: what they make of every accepted format, and of anything else."""

from __future__ import annotations

import copy
import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qr_core import Document, InputError
from qr_core.detection.needles import NEEDLES, Needle, default_haystack
from qr_core.evaluation.data.clipper import read_clipper
from qr_core.evaluation.data.longmemeval import read_longmemeval
from qr_core.evaluation.data.multihop import NOT_SAID, read_multihop
from qr_core.evaluation.data.niah import needle_grid
from qr_core.evaluation.work import Expected, Work

HOTPOT = {
    "_id": "h1",
    "question": "In which town was the builder of the Ellin bridge born?",
    "answer": "Torvik",
    "type": "bridge",
    "context": [
        ["Ellin bridge", ["The bridge has six arches.", " Tobias Wren built it."]],
        ["Ovens", ["An oven is hot."]],
        ["Tobias Wren", ["Tobias Wren was born in Torvik.", "  "]],
    ],
    "supporting_facts": [["Ellin bridge", 1], ["Tobias Wren", 0], ["Tobias Wren", 9]],
}
COLUMNS = HOTPOT | {
    "context": {
        "title": [title for title, _ in HOTPOT["context"]],
        "sentences": [sentences for _, sentences in HOTPOT["context"]],
    },
    "supporting_facts": {"title": ["Ellin bridge", "Tobias Wren"], "sent_id": [1, 0]},
}
MUSIQUE = {
    "id": "2hop__1_2",
    "question": "Who feeds the cat of the lighthouse keeper?",
    "answer": "Ida",
    "answerable": True,
    "paragraphs": [
        {"idx": 0, "title": "Keeper", "paragraph_text": "The keeper has a cat, Moss.", "is_supporting": True},
        {"idx": 1, "title": "Keeper", "paragraph_text": "The keeper sleeps by day.", "is_supporting": False},
        {"idx": 2, "title": "Moss", "paragraph_text": "Ida feeds Moss.", "is_supporting": True},
    ],
}
LONGMEMEVAL = [
    {
        "question_id": "m1",
        "question_type": "single-session-user",
        "question": "How many herons did I count?",
        "answer": 7,
        "question_date": "2031/05/04 (Sun) 10:00",
        "haystack_session_ids": ["s1", "answer_1", "s1"],
        "haystack_dates": ["2031/05/01", "2031/05/02", "2031/05/03"],
        "haystack_sessions": [
            [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Good day.\n"}],
            [{"role": "user", "content": "I counted seven herons.", "has_answer": True}],
            [],
        ],
        "answer_session_ids": ["answer_1"],
    }
]
LONGMEMEVAL.append(
    LONGMEMEVAL[0]
    | {
        "question_id": "m2_abs",
        "question": "How many geese did I count?",
        "answer": "Only herons were spoken of.",
        "answer_session_ids": ["elsewhere"],
    }
)
BOOKS = [
    {
        "book": book,
        "paragraphs": [
            {"idx": str(n), "title": f"Chapter {n}", "paragraph_text": text} for n, text in enumerate(texts)
        ],
    }
    for book, texts in {"sea": ["The ship left.", "A storm came."], "land": ["They ploughed.", "It rained."]}.items()
]
CLAIMS = [
    {"idx": "sea:0", "book": "sea", "question": "A storm comes.", "question_false": "It stays calm.", "gt_docs": ["1"]},
    {"idx": "land:0", "book": "land", "question": "It rains.", "question_false": "It snows.", "gt_docs": ["0", "1"]},
    {"idx": "sea:1", "book": "sea", "question": "A ship goes.", "question_false": "No ship goes.", "gt_docs": ["0"]},
]
CLAIMS = [claim | {"kind": "single"} for claim in CLAIMS]
FLAT = [
    claim | {"paragraphs": book["paragraphs"]} for claim in CLAIMS for book in BOOKS if book["book"] == claim["book"]
]


def save(path: Path, rows, form: str = "list") -> Path:
    """Write rows as a list or as lines; packed where the name says so."""
    text = json.dumps(rows) if form == "list" else "\n".join(map(json.dumps, rows)) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.fixture
def books(tmp_path):
    save(tmp_path / "books.json.gz", BOOKS)
    save(tmp_path / "claims.json", CLAIMS)
    return tmp_path


# Several passages


@pytest.mark.parametrize("row", [HOTPOT, COLUMNS], ids=["rows", "columns"])
@pytest.mark.parametrize(("name", "form"), [("a.json", "list"), ("a.json.gz", "list"), ("a.txt", "lines")])
def test_hotpot(tmp_path, row, name, form):
    work = read_multihop(save(tmp_path / name, [row], form))
    (pool,) = work.pools
    assert (pool.query_id, pool.query) == ("h1", HOTPOT["question"])
    assert pool.documents == (
        Document("The bridge has six arches. Tobias Wren built it.", "Ellin bridge", "0"),
        Document("An oven is hot.", "Ovens", "1"),
        Document("Tobias Wren was born in Torvik.", "Tobias Wren", "2"),
    )
    assert work.qrels == {"h1": {"0": 1, "2": 1}}
    assert work.expected == {"h1": Expected(HOTPOT["question"], "Torvik", "bridge")}
    assert work.notes == ()


@pytest.mark.parametrize(("name", "form"), [("a.jsonl", "lines"), ("a.jsonl.gz", "lines"), ("a.json", "list")])
def test_musique(tmp_path, name, form):
    twin = MUSIQUE | {"answerable": False}
    work = read_multihop(save(tmp_path / name, [MUSIQUE, twin], form))
    assert [document.id for document in work.pools[0].documents] == ["0", "1", "2"]
    assert [document.title for document in work.pools[0].documents] == ["Keeper", "Keeper", "Moss"]
    assert work.qrels == {MUSIQUE["id"]: {"0": 1, "2": 1}}  # the other passage called Keeper supports nothing
    assert work.expected[MUSIQUE["id"]] == Expected(MUSIQUE["question"], "Ida", "2 hops")
    unanswerable = work.expected[f"{MUSIQUE['id']}/unanswerable"]
    assert (unanswerable.abstain, unanswerable.answer) == (True, NOT_SAID)
    assert "1 questions are marked unanswerable" in work.notes[0]


def test_one_file_may_hold_both_and_equal_contexts_are_shared(tmp_path):
    other = HOTPOT | {"id": "h2", "question": "How many arches are there?", "answer": "six"}
    other.pop("_id")
    work = read_multihop(save(tmp_path / "a", [HOTPOT, MUSIQUE, other]))
    assert [pool.query_id for pool in work.pools] == ["h1", "h2", MUSIQUE["id"]]
    assert work.pools[0].documents is work.pools[1].documents


def test_all_passages_of_a_supporting_title_are_gold(tmp_path):
    row = HOTPOT | {"context": [*HOTPOT["context"], ["Tobias Wren", ["Another man of that name."]]]}
    assert read_multihop(save(tmp_path / "a", [row])).qrels == {"h1": {"0": 1, "2": 1, "3": 1}}


PARAGRAPH = MUSIQUE["paragraphs"][0]


@pytest.mark.parametrize(
    ("row", "change", "words"),
    [
        (HOTPOT, {"supporting_facts": []}, r"a\.json, entry 1: no passage is marked as supporting, as in a test set"),
        (HOTPOT, {"supporting_facts": None}, "no passage is marked as supporting"),
        (HOTPOT, {"supporting_facts": [["Nobody", 0]]}, "entry 1: the supporting passage 'Nobody' is not in its"),
        (HOTPOT, {"supporting_facts": ["Ovens"]}, "'supporting_facts' must be a list of"),
        (HOTPOT, {"supporting_facts": [[None, 0]]}, "'title' must be a string"),
        (COLUMNS, {"supporting_facts": {"title": []}}, "no passage is marked"),
        (HOTPOT, {"context": []}, "'context' is empty"),
        (HOTPOT, {"context": "x"}, "'context' must be a list"),
        (HOTPOT, {"context": [["Ellin bridge"]]}, "passage 0 of 'context' must be"),
        (HOTPOT, {"context": [["Ellin bridge", [3]]]}, "passage 0 of 'context' has a sentence"),
        (COLUMNS, {"context": {"title": ["a"], "sentences": []}}, "1 titles but 0 lists"),
        (HOTPOT, {"_id": "h0"}, "question 'h0' stands twice"),
        (HOTPOT, {"_id": float("nan")}, "'_id' must be a string that is not blank, or a number, but it is not finite"),
        (HOTPOT, {"question": " "}, "'question' must be a string that is not blank, but it is blank"),
        (HOTPOT, {"answer": 3}, "'answer' must be a string that is not blank, but it is of type int"),
        (HOTPOT, {"type": 3}, "'type' must be a string"),
        (MUSIQUE, {"paragraphs": []}, "'paragraphs' is empty"),
        (MUSIQUE, {"paragraphs": {}}, "'paragraphs' must be a list, but it is of type dict"),
        (MUSIQUE, {"paragraphs": [[]]}, "paragraph 0: it is no object"),
        (MUSIQUE, {"paragraphs": [{"title": "x"}]}, "paragraph 0: 'paragraph_text' is missing"),
        (MUSIQUE, {"paragraphs": [{"paragraph_text": "x"}]}, "no passage is marked as supporting"),
        (MUSIQUE, {"paragraphs": [PARAGRAPH | {"is_supporting": 1}]}, "paragraph 0: 'is_supporting' must be true"),
        (MUSIQUE, {"answerable": "no"}, "'answerable' must be true or false"),
    ],
)
def test_malformed_multihop_is_named(tmp_path, row, change, words):
    with pytest.raises(InputError, match=words):
        read_multihop(save(tmp_path / "a.json", [HOTPOT | {"_id": "h0"}, row | change]))


def test_a_question_without_passages(tmp_path):
    with pytest.raises(InputError, match=r"a\.jsonl, line 2: it has neither a 'context'"):
        read_multihop(save(tmp_path / "a.jsonl", [HOTPOT, {"id": 1, "question": "Who?"}], "lines"))


# Chats


@pytest.mark.parametrize(("name", "form"), [("a.json", "list"), ("a.json.gz", "list"), ("a.jsonl", "lines")])
def test_longmemeval(tmp_path, name, form):
    work = read_longmemeval(save(tmp_path / name, LONGMEMEVAL, form))
    assert [pool.query_id for pool in work.pools] == ["m1", "m2_abs"]
    assert work.pools[0].query == "How many herons did I count?"
    assert work.pools[0].documents == (
        Document("user: Hello.\nassistant: Good day.", "Session of 2031/05/01", "s1"),
        Document("user: I counted seven herons.", "Session of 2031/05/02", "answer_1"),
        Document("", "Session of 2031/05/03", "s1#2"),
    )
    assert work.pools[0].documents is work.pools[1].documents
    assert work.qrels == {"m1": {"answer_1": 1}}
    asked = "Today is 2031/05/04 (Sun) 10:00. How many herons did I count?"
    assert work.expected["m1"] == Expected(asked, "7", "single-session-user")
    assert work.expected["m2_abs"].abstain
    assert work.expected["m2_abs"].answer == "Only herons were spoken of."
    assert work.notes == ("1 abstention questions are asked, but have no ranking to measure",)


def test_sessions_of_one_id_are_told_apart_and_all_gold(tmp_path):
    row = LONGMEMEVAL[0] | {"haystack_session_ids": ["a", "a#2", "a"], "answer_session_ids": ["a"]}
    work = read_longmemeval(save(tmp_path / "a", [row]))
    assert [document.id for document in work.pools[0].documents] == ["a", "a#2", "a#2#"]
    assert work.qrels == {"m1": {"a": 1, "a#2#": 1}}
    assert work.notes == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"answer_session_ids": ["gone"]}, r"a\.json, entry 1: answer session 'gone' is not among"),
        ({"answer_session_ids": []}, "'answer_session_ids' is empty"),
        ({"answer_session_ids": [None]}, "'answer_session_ids' must be a string"),
        ({"haystack_dates": []}, "must be of one length, from 1, but have 3, 0 and 3"),
        ({"haystack_sessions": None}, "'haystack_sessions' must be a list, but it is of type NoneType"),
        ({"haystack_sessions": [[], [], "x"]}, "session 2 must be a list of turns"),
        ({"haystack_sessions": [[], [{"role": "user"}], []]}, "every turn of session 1 must be an object"),
        ({"answer": float("nan")}, "'answer' must be a string that is not blank, or a number, but it is not finite"),
        ({"answer": True}, "'answer' must be a string that is not blank, or a number, but it is of type bool"),
        ({"question_date": 5}, "'question_date' must be a string"),
        ({"question_type": ""}, "'question_type' must be a string"),
        ({"question_id": "m0"}, "question 'm0' stands twice"),
        ({"question_id": None}, "'question_id' must be"),
    ],
)
def test_malformed_longmemeval_is_named(tmp_path, change, words):
    rows = [LONGMEMEVAL[0] | {"question_id": "m0"}, LONGMEMEVAL[0] | change]
    with pytest.raises(InputError, match=words):
        read_longmemeval(save(tmp_path / "a.json", rows))


# Books


@pytest.mark.parametrize("source", ["folder", "flat.json", "flat.json.gz"])
@pytest.mark.parametrize("with_false", [False, True])
def test_clipper(books, source, with_false):
    path = books if source == "folder" else save(books / source, FLAT)
    work = read_clipper(path, with_false)
    ids = ["sea:0", "sea:0/false", "sea:1", "sea:1/false", "land:0", "land:0/false"]
    assert [pool.query_id for pool in work.pools] == [key for key in ids if with_false or not key.endswith("/false")]
    assert len({id(pool.documents) for pool in work.pools}) == 2
    assert work.pools[0].documents[1] == Document("A storm came.", "Chapter 1", "1")
    assert work.qrels == {"sea:0": {"1": 1}, "sea:1": {"0": 1}, "land:0": {"0": 1, "1": 1}}
    true = work.expected["sea:0"]
    assert (true.answer, true.labels, true.unit, true.kind) == ("true", ("true", "false"), "sea:0", "single")
    assert true.question.endswith("A storm comes.")
    assert set(work.expected) == {pool.query_id for pool in work.pools}
    assert len(work.notes) == with_false
    if with_false:
        false = work.expected["sea:0/false"]
        assert (false.answer, false.labels, false.unit, false.kind) == ("false", ("true", "false"), "sea:0", "single")
        assert work.pools[1].query == "It stays calm."


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"question_false": None}, r"claims\.json, entry 1: 'question_false' must be a string"),
        ({"kind": 3}, r"claims\.json, entry 1: 'kind' must be a string"),
        ({"idx": "sea:0"}, "entry 1: idx 'sea:0' stands twice"),
        ({"idx": "sea:0/false", "book": "sea"}, "entry 1: claim 'sea:0/false' stands twice"),
        ({"idx": [1]}, "entry 1: 'idx' must be a string"),
        ({"book": "air"}, "entry 1: there is no book 'air'"),
        ({"book": {}}, "entry 1: 'book' must be a string"),
        ({"gt_docs": ["7"]}, "entry 1: gold paragraph '7' is not in its context"),
        ({"gt_docs": [[]]}, "entry 1: 'gt_docs' must be a string"),
    ],
)
def test_malformed_claims_are_named(books, change, words):
    save(books / "claims.json", [CLAIMS[0], CLAIMS[1] | change])
    with pytest.raises(InputError, match=words):
        read_clipper(books, True)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([BOOKS[0], BOOKS[0]], r"books\.json\.gz, entry 1: book 'sea' stands twice"),
        (
            [{"paragraphs": []}],
            r"books\.json\.gz, entry 0: 'book' must be a string that is not blank, or a number, but",
        ),
        ([{"book": "sea"}], "book sea: 'paragraphs' is missing or empty"),
        (
            [BOOKS[0] | {"paragraphs": BOOKS[0]["paragraphs"] * 2}, BOOKS[1]],
            "two chapters of its book have the same 'idx'",
        ),
        ([{"book": "sea", "paragraphs": [{"paragraph_text": "x", "title": {}}]}], "paragraph 0: 'title' must be"),
    ],
)
def test_malformed_books_are_named(books, rows, words):
    save(books / "books.json.gz", rows)
    with pytest.raises(InputError, match=words):
        read_clipper(books, False)


def test_folders_of_other_data_and_no_claims(books):
    save(books / "claims.json", [])
    with pytest.raises(InputError, match="holds no claims"):
        read_clipper(books, False)
    (books / "books.json.gz").rename(books / "meetings.json.gz")
    (books / "claims.json").rename(books / "queries.json")
    with pytest.raises(InputError, match=r"does not hold books\.json and claims\.json"):
        read_clipper(books, False)


# Whatever the file holds


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
    ids = [pool.query_id for pool in work.pools]
    assert len(set(ids)) == len(ids)
    assert set(work.expected) == set(ids)
    for pool in work.pools:
        keys = [document.id for document in pool.documents]
        assert len(set(keys)) == len(keys)
        assert set(work.qrels.get(pool.query_id, {})) <= set(keys)
        assert pool.query_id not in work.qrels or work.qrels[pool.query_id]
        assert all(isinstance(text, str) for d in pool.documents for text in (d.text, d.title or "", d.id))
        wanted = work.expected[pool.query_id]
        assert all(isinstance(text, str) for text in (pool.query, wanted.question, wanted.answer, wanted.kind))


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


# Needles


SENTENCES = [
    f"Sentence {n} tells of the weather over the {c} hills in spring." for n, c in enumerate("abcdefghij" * 40)
]
HAYSTACK = "\n\n".join(" ".join(SENTENCES[n : n + 5]) for n in range(0, len(SENTENCES), 5))


def words_of(text: str) -> int:
    return len(text.split())


def test_a_grid_of_needles():
    asked: Counter[str] = Counter()

    def count(text: str) -> int:
        asked[text] += 1
        return words_of(text)

    lengths, depths = (500, 1000, 8000), (0.0, 0.5, 1)
    work, cells = needle_grid(HAYSTACK, NEEDLES[:2], lengths, depths, count)
    assert len(work.pools) == len(cells) == 2 * 3 * 3
    assert [pool.query_id for pool in work.pools[:3]] == ["n0-l500-d0", "n1-l500-d0", "n0-l500-d0.5"]
    assert cells["n1-l8000-d0.5"] == (8000, 0.5)
    for pool in work.pools:
        length, depth = cells[pool.query_id]
        needle = NEEDLES[int(pool.query_id[1])]
        assert pool.query == needle.question
        assert work.expected[pool.query_id] == Expected(needle.question, needle.answer, f"{length} tokens")
        (gold,) = work.qrels[pool.query_id]
        holding = [document.id for document in pool.documents if needle.sentence in document.text]
        assert holding == [gold]
        assert int(gold) / (len(pool.documents) - 1) == pytest.approx(depth, abs=0.15)
        assert 0.85 * length <= sum(words_of(document.text) for document in pool.documents) <= length
        assert all(words_of(document.text) <= 130 for document in pool.documents)
    assert max(asked.values()) == 1
    assert max(map(words_of, asked)) < 30
    (note,) = work.notes
    assert "about 5200 tokens: it is repeated for lengths of 8000" in note


def test_one_passage_is_said_to_be_no_ranking():
    work, _ = needle_grid(HAYSTACK, NEEDLES[:1], (80, 500), (0.5,), words_of)
    assert work.notes == ("texts of 80 tokens are one passage: every ranking of them is right",)


@pytest.mark.parametrize(
    "sentence",
    [
        "Mr. J. Lind of St. Orme keeps 3.5 geese. He calls them No. 1 to No. 4. They bite.",
        "  The geese of Orme bite. \n",
        "One goose bites.\n\nTwo geese bite.\n\nThree geese flee.",
        " ".join(["The geese of Orme bite everyone who comes near the pond."] * 40),
    ],
)
@pytest.mark.parametrize("haystack", [HAYSTACK, "no full stop " * 900], ids=["sentences", "no sentences"])
def test_a_needle_is_never_cut(sentence, haystack):
    depths = [n / 20 for n in range(21)]
    work, _ = needle_grid(haystack, [Needle(sentence, "Who bites?", "geese")], (1500,), depths, words_of)
    for pool in work.pools:
        (gold,) = work.qrels[pool.query_id]
        assert [d.id for d in pool.documents if sentence.strip() in d.text] == [gold]
        assert not [d for d in pool.documents if d.id != gold and ("goose" in d.text or "geese" in d.text)]


@settings(deadline=None, max_examples=60)
@given(haystack=st.text(st.sampled_from("ab .\n\ud800é"), min_size=1, max_size=600), depth=st.floats(0, 1))
def test_any_haystack_has_one_gold_passage(haystack, depth):
    needle = NEEDLES[2]
    try:
        work, _ = needle_grid(haystack, [needle], (400,), (depth,), words_of)
    except InputError as error:
        assert "haystack is blank" in str(error)  # noqa: PT017
        return
    (pool,) = work.pools
    (gold,) = work.qrels[pool.query_id]
    assert [d.id for d in pool.documents if needle.sentence in d.text] == [gold]
    assert [d.id for d in pool.documents] == [str(n) for n in range(len(pool.documents))]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"haystack": " "}, "the haystack is blank"),
        ({"haystack": f"x. {NEEDLES[0].sentence} y."}, "the haystack holds needle 0 already"),
        ({"needles": []}, "no needles"),
        ({"needles": [Needle(" ", "Who?", "x")]}, "needle 0 is blank"),
        ({"lengths": []}, "no lengths"),
        ({"lengths": [0]}, "a length is 0: use a whole number from 1"),
        ({"lengths": [15]}, "leave no room"),
        ({"lengths": [500, 500]}, "length 500 at depth 0.5 is asked for twice"),
        ({"depths": []}, "no depths"),
        ({"depths": [1.1]}, "a depth is 1.1: use a number from 0 to 1"),
        ({"depths": [float("nan")]}, "a depth is nan"),
        ({"depths": [0.5, 0.5000000001]}, "asked for twice"),
    ],
)
def test_grids_that_make_no_sense(changes, words):
    given = {"haystack": HAYSTACK, "needles": NEEDLES[:1], "lengths": [500], "depths": [0.5]} | changes
    with pytest.raises(InputError, match=words):
        needle_grid(**given, count=words_of)


def test_the_haystack_in_the_package():
    work, cells = needle_grid(default_haystack(), NEEDLES, (1000,), (0, 1), words_of)
    assert len(work.pools) == len(cells) == 8


# Real data, where it is at hand


def test_the_claims_beside_this_repository():
    folder = Path(__file__).parents[4] / "shared/data/eval/longcontext/clipper_dev"
    if not folder.is_dir():
        pytest.skip("the data set is not at hand")
    work = read_clipper(folder, True)
    assert len(work.qrels) == 3612
    assert len(work.pools) == len(work.expected) == 2 * 3612
    assert len({id(pool.documents) for pool in work.pools}) == 40
    assert Counter(wanted.kind for wanted in work.expected.values()) == {"single": 6210, "multiple": 1014}
