"""Windows: packing, rounds, what scores of several rounds come to; and rankings that need them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qr_core import ContextLengthError, Document, InputError, QRScorer
from qr_core.ranking import rounds
from qr_core.ranking.rounds import RunningScore, expected_tokens, pack, tournament
from qr_core.text.pieces import Piece
from tests.helpers import DOCUMENTS, GOLDEN, QUERY, in_order


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 25), min_size=1, max_size=300), st.integers(100, 1000))
def test_packs_keep_order_and_fit(lengths, capacity):
    packed = pack(lengths, capacity)
    assert [n for window in packed for n in window] == list(range(len(lengths)))
    assert all(sum(lengths[n] for n in window) <= capacity for window in packed)
    assert all(packed)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 25), min_size=1, max_size=300), st.integers(100, 1000), st.randoms())
def test_a_tournament_ends_in_one_segment_with_the_best(lengths, capacity, rng):
    worth = [(rng.random(), -n) for n in range(len(lengths))]  # equal ones: the earlier is better
    readings: dict[int, list[list[int]]] = {}

    def read(stage, window, members):
        rounds = readings.setdefault(stage, [])
        assert window == len(rounds)
        rounds.append(list(members))
        assert sum(lengths[n] for n in members) <= capacity
        return [worth[n][0] for n in members]

    tournament(lengths, capacity, read)
    assert sorted(n for members in readings[1] for n in members) == list(range(len(lengths)))
    assert len(readings[len(readings)]) == 1
    assert worth.index(max(worth)) in readings[len(readings)][0]
    for stage in range(2, len(readings) + 1):
        going_on = {n for members in readings[stage] for n in members}
        bests = {max(members, key=lambda n: worth[n]) for members in readings[stage - 1]}
        assert bests <= going_on  # every window sends its best; all others go on by worth alone
        dropped = [worth[n] for members in readings[stage - 1] for n in members if n not in going_on]
        assert min((worth[n] for n in going_on - bests), default=(2, 0)) > max(dropped, default=(-1, 0))


def test_expected_tokens_are_about_those_read():
    lengths = [20] * 1000
    read = 0

    def reading(_, __, members):
        nonlocal read
        read += sum(lengths[n] for n in members)
        return list(members)

    tournament(lengths, 2000, reading)
    assert read == pytest.approx(expected_tokens(lengths, 2000), rel=0.1)


@pytest.mark.parametrize("gap", [" ", " " * 20, "\n" * 20, "\n\n", " \t \n" * 7])
@pytest.mark.parametrize("model", ["tiny-llama", "tiny-qwen2"])
def test_white_space_that_is_tokens_fits_its_window(model, gap):
    """As PDF text, logs and padded tables have it."""
    scorer = QRScorer.from_pretrained(
        GOLDEN / model, "1-1,2-2", template="plain", device="cpu", max_prompt_tokens=400, calibrate=False
    )
    text = gap.join(f"Room {i} is cold." for i in range(60))
    ranking = scorer.rank("Which room is cold?", [text, "A short one."])
    assert sorted(hit.index for hit in ranking) == [0, 1]
    assert ranking.windows > 1
    assert len(scorer.prune("Which room is cold?", text, top_k=1000).spans) == 60


def test_windows_shrink_when_pieces_add_up_to_more_than_their_parts(monkeypatch):
    scorer = QRScorer.from_pretrained(
        GOLDEN / "tiny-llama", "1-1,2-2", template="plain", device="cpu", max_prompt_tokens=300
    )
    documents = [f"Room {i} is cold and has a view of the yard." for i in range(60)]
    lengths = type(scorer.prompts).lengths
    monkeypatch.setattr(type(scorer.prompts), "lengths", lambda self, d: [n * 3 // 4 for n in lengths(self, d)])
    ranking = scorer.rank("Which room is cold?", documents)
    assert sorted(hit.index for hit in ranking) == list(range(60))
    monkeypatch.setattr(type(scorer.prompts), "lengths", lambda self, d: [1] * len(d))
    with pytest.raises(ContextLengthError, match="raise max_prompt_tokens"):
        scorer.rank("Which room is cold?", documents)


def test_hits_name_their_window_and_round():
    scorer = QRScorer.from_pretrained(
        GOLDEN / "tiny-llama", "1-1,2-2", template="plain", device="cpu", max_prompt_tokens=250
    )
    documents = [f"Room {i} is cold and has a view of the yard." for i in range(80)]
    ranking = scorer.rank("Which room is cold?", documents)
    assert ranking.rounds >= 3
    assert {hit.round for hit in ranking} == set(range(1, ranking.rounds + 1))
    first = sorted((hit.index, hit.window) for hit in ranking if hit.round == 1)
    assert [window for _, window in first] == sorted(window for _, window in first)  # windows follow the documents
    assert {window for _, window in first} == set(range(ranking.windows))
    assert {hit.window for hit in ranking if hit.round == ranking.rounds} == {0}
    assert [hit.round for hit in ranking] == sorted((hit.round for hit in ranking), reverse=True)


def test_parts_scored_in_one_round_add_up_and_later_rounds_replace():
    running = RunningScore()
    running.record(1, 2, 0.5, 0.25)
    running.record(1, 2, 0.25, 0.5)
    assert (running.round, running.segment, running.score, running.relevance) == (1, 2, 0.75, 0.75)
    running.record(2, 0, 0.125, 0.5)
    running.record(2, 1, 0.125, 0.75)
    assert (running.round, running.segment, running.score, running.relevance) == (2, 1, 0.25, 0.75)


def test_of_parts_the_best_may_count():
    running = RunningScore()
    for segment, score, share in [(2, 0.5, 0.25), (3, 0.75, 0.5), (4, 0.25, 0.9)]:
        running.record(1, segment, score, share, best=True)
    assert (running.round, running.segment, running.score, running.relevance) == (1, 3, 0.75, 0.5)
    running.record(2, 0, -0.125, 0.0, best=True)
    assert (running.round, running.segment, running.score) == (2, 0, -0.125)


def test_round_comes_before_score_and_relevance_never_rises():
    scores = [
        RunningScore(1, 0, 9.0, 0.9),
        RunningScore(2, 0, 0.1, 0.2),
        RunningScore(2, 0, 0.3, 0.6),
        RunningScore(1, 1, 9.0, 0.9),
    ]
    assert rounds.order_of(scores) == [2, 1, 0, 3]
    assert [running.relevance for running in scores] == [0.2, 0.2, 0.6, 0.2]


@pytest.fixture(scope="module")
def tiny() -> QRScorer:
    return QRScorer.from_pretrained(GOLDEN / "tiny-llama", "2-1,4-3,3-5", template="plain", device="cpu")


MANY = [Document(f"{DOCUMENTS[i % 3].text} Variation {i} of it.", f"Title {i}", i) for i in range(24)]


def windowed(limit: int, **options) -> QRScorer:
    return QRScorer.from_pretrained(
        GOLDEN / "tiny-llama", "2-1,4-3,3-5", template="plain", device="cpu", max_prompt_tokens=limit, **options
    )


@pytest.mark.parametrize("order", ["given", "reversed"])
def test_the_last_round_is_one_joint_prompt(tiny, order):
    whole = tiny.rank(QUERY, MANY, order=order)
    assert (whole.windows, whole.rounds) == (1, 1)
    ranking = windowed(600).rank(QUERY, MANY, order=order)
    assert ranking.windows > 2
    assert sorted(hit.index for hit in ranking) == list(range(24))
    assert [hit.round for hit in ranking] == sorted((hit.round for hit in ranking), reverse=True)
    assert [hit.relevance for hit in ranking] == sorted((hit.relevance for hit in ranking), reverse=True)
    final = [hit for hit in ranking if hit.round == ranking.rounds]
    assert {hit.window for hit in final} == {0}
    places = sorted(hit.index for hit in final)
    alone = tiny.rank(QUERY, [MANY[i] for i in places], order=order)
    assert [places[hit.index] for hit in alone] == [hit.index for hit in final]
    assert [hit.score for hit in alone] == pytest.approx([hit.score for hit in final], abs=1e-6)


def test_input_that_fits_is_read_as_without_a_limit(tiny):
    length = len(tiny.reader.prompts.build([QUERY], MANY)[0].ids)
    assert in_order(windowed(length).rank(QUERY, MANY)) == in_order(tiny.rank(QUERY, MANY))
    assert windowed(length - 1).rank(QUERY, MANY).windows == 2


def test_a_long_document_is_read_in_parts(tiny):
    long = Document("\n\n".join(document.text for document in MANY), "All of it")
    ranking = windowed(600).rank(QUERY, [DOCUMENTS[0], long, DOCUMENTS[1]])
    assert sorted(hit.index for hit in ranking) == [0, 1, 2]
    assert ranking.windows > 2


def test_rank_many_reads_windows_once(monkeypatch):
    from qr_core.reading import joint

    lengths = []
    prefill = joint.prefill

    def counted(model, input_ids, *args, **options):
        lengths.append(input_ids.shape[1])
        return prefill(model, input_ids, *args, **options)

    monkeypatch.setattr(joint, "prefill", counted)
    scorer = windowed(900)
    first, second = scorer.rank_many([(QUERY, MANY), ("Who built the bridge?", MANY)])
    assert (first.windows, first.rounds) == (2, 2)  # so that every later round is one window
    assert len(lengths) == first.windows + (first.rounds - 1) + (second.rounds - 1)


def test_progress_reaches_the_end():
    seen = []
    windowed(600).rank(QUERY, MANY, progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert all(done <= total for done, total in seen)
    assert seen[-1][0] == pytest.approx(seen[-1][1], rel=0.25)


def test_a_window_too_small_for_the_query_is_an_error():
    with pytest.raises(ContextLengthError, match="shorten the query"):
        windowed(90).rank(QUERY, MANY)
    with pytest.raises(InputError, match="max_prompt_tokens is 0"):
        windowed(0)


def test_no_piece_is_cut_where_all_fits():
    piece = Piece(0, 0, len(MANY[0].text))
    assert piece.of(MANY) is MANY[0]


LONG = " ".join(f"{document.text} That was part {number}." for number, document in enumerate(MANY[:7]))


@pytest.mark.parametrize("layout", ["joint", "independent"])
@pytest.mark.parametrize("order", ["given", "reversed"])
def test_of_a_long_document_the_best_part_counts(layout, order):
    options = {"template": "plain", "layout": layout, "device": "cpu", "filter_tokens": False}
    plain = QRScorer.from_pretrained(GOLDEN / "tiny-llama", "2-1,4-3,3-5", **options)
    parted = QRScorer.from_pretrained(GOLDEN / "tiny-llama", "2-1,4-3,3-5", passage_tokens=80, **options)
    documents = [MANY[0], Document(LONG, "Title"), MANY[1]]
    parts = parted.parts(documents)
    assert [part.document for part in parts][:2] == [0, 1]
    assert len(parts) > 5
    by_part = in_order(plain.rank(QUERY, [part.of(documents) for part in parts], order=order))
    best = [max(s for part, s in zip(parts, by_part, strict=True) if part.document == n) for n in range(3)]
    ranking = parted.rank(QUERY, documents, order=order)
    assert in_order(ranking) == pytest.approx(best, abs=1e-6)
    assert [hit.document for hit in ranking] == [documents[hit.index] for hit in ranking]
    assert sum(hit.relevance for hit in ranking) <= 1 + 1e-6
    assert parted.with_heads(parted.heads, "same").passage_tokens == 80


def test_windows_of_parts():
    options = {"template": "plain", "device": "cpu", "passage_tokens": 60, "max_prompt_tokens": 500}
    scorer = QRScorer.from_pretrained(GOLDEN / "tiny-llama", "2-1,4-3,3-5", **options)
    ranking = scorer.rank(QUERY, [LONG, *MANY[:8], LONG])
    assert ranking.windows > 1
    assert sorted(hit.index for hit in ranking) == list(range(10))
