"""Late layout: what documents leave behind, for whom, and that everything built on a scorer works with it."""

from __future__ import annotations

import pytest
import torch

from qr_core import ContextLengthError, Document, HeadSet, InputError, QRScorer
from qr_core.cache.documents import DocumentCache
from qr_core.cache.folder import entries
from qr_core.detection.detect import detect_heads
from qr_core.detection.examples import Example
from qr_core.heads.parts import HeadShape
from qr_core.reading.late import LateLayout
from qr_core.reading.make import prompt_limit
from tests.architectures import FAMILIES
from tests.helpers import DOCUMENTS, QUERY, in_order

OPTIONS = {"device": "cpu", "dtype": "float32", "layout": "late", "cache_bytes": 0}
LONG = [Document(" ".join(f"word{n * 7 % 90}" for n in range(length))) for length in (1, 9, 14, 31, 33, 90, 130)]


@pytest.fixture(scope="module")
def folders(save_tiny, save_encoder):
    return {"llama": save_tiny(FAMILIES["llama"]()), "bert": save_encoder("bert")}


def scorer_of(folder, heads="1-1,1-3,2-2", **options) -> QRScorer:
    return QRScorer.from_pretrained(folder, heads, **OPTIONS | options)


KINDS = pytest.mark.parametrize("kind", ["llama", "bert"])


@KINDS
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_scores_do_not_depend_on_order_nor_on_what_is_kept(folders, kind, dtype):
    """To the last bit, as for the independent layout."""
    expected = in_order(scorer_of(folders[kind], dtype=dtype).rank(QUERY, LONG))
    backwards = in_order(scorer_of(folders[kind], dtype=dtype).rank(QUERY, LONG[::-1]))
    assert backwards[::-1] == expected
    warm = scorer_of(folders[kind], dtype=dtype, document_cache=DocumentCache())
    for company in (LONG[2:5], LONG[4:], LONG[:1]):
        warm.rank("Something else?", company)
    assert in_order(warm.rank(QUERY, LONG)) == expected
    assert in_order(warm.rank(QUERY, LONG)) == expected


@KINDS
def test_documents_leave_the_keys_of_selected_heads_behind_and_nothing_else(folders, kind, tmp_path):
    cache = DocumentCache(folder=tmp_path / "kept")
    scorer = scorer_of(folders[kind], document_cache=cache)
    expected = in_order(scorer.rank(QUERY, LONG))
    tokens = sum(scorer.lengths(LONG))
    key_heads = 3 if kind == "bert" else 2  # heads 1 and 3 of the Llama share a key head
    width, instruction = 8, 0 if kind == "bert" else scorer.prompt(QUERY, LONG).query.instruction
    of_instruction = instruction * 3 * 2 * 2 * width * 4  # its keys and values in three layers, of two key heads
    assert cache.bytes == (tokens + instruction) * key_heads * width * 4 + of_instruction
    kept = entries(tmp_path / "kept")
    assert len(kept) == len(LONG)
    assert sum(entry.bytes for entry in kept) < tokens * key_heads * width * 4 + 1024 * len(kept)

    again = DocumentCache(folder=tmp_path / "kept")
    other = scorer_of(folders[kind], document_cache=again)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LateLayout, "encode", None)
        assert in_order(other.rank(QUERY, LONG)) == expected
    few = scorer_of(folders[kind], "2-2", document_cache=DocumentCache(folder=tmp_path / "kept"))
    few.rank(QUERY, LONG)
    assert len(entries(tmp_path / "kept")) == 2 * len(LONG)  # keys of other heads are other entries


@KINDS
def test_many_queries_are_those_alone_and_encode_documents_once(folders, kind, monkeypatch):
    alone = [in_order(scorer_of(folders[kind]).rank(query, LONG)) for query in (QUERY, "Who?", "A word.")]
    scorer, encoded, encode = scorer_of(folders[kind], document_cache=DocumentCache()), [], LateLayout.encode
    monkeypatch.setattr(LateLayout, "encode", lambda *args: encoded.extend(args[4]) or encode(*args))
    jobs = [(query, LONG) for query in (QUERY, "Who?", "A word.")]
    assert [in_order(ranking) for ranking in scorer.rank_many(jobs)] == alone
    assert len(encoded) == len(LONG)


@KINDS
def test_pruning_explanation_and_parts_work(folders, kind):
    scorer = scorer_of(folders[kind], passage_tokens=40)
    text = "\n\n".join(document.text for document in [*DOCUMENTS, *LONG])
    pruned = scorer.prune(QUERY, text, max_tokens=60)
    assert 0 < pruned.kept_tokens <= 60
    assert pruned.layout == "late"
    assert all(text[span.start : span.end].strip() for span in pruned.spans)
    explained = scorer.explain(QUERY, DOCUMENTS)
    assert [round(hit.score, 6) for hit in explained.ranking] == [
        round(hit.score, 6) for hit in scorer.rank(QUERY, DOCUMENTS)
    ]
    assert scorer.rank(QUERY, [*DOCUMENTS, Document("")]).layout == "late"


@KINDS
def test_heads_are_found_under_it(folders, kind):
    scorer = scorer_of(folders[kind], "all")
    examples = [Example(str(n), QUERY, tuple(DOCUMENTS), (0,)) for n in range(3)]
    found = detect_heads(scorer, examples, "ndcg", num_heads=4).heads
    assert found.layout == "late"
    assert found.template == ("bare" if kind == "bert" else "chat")
    assert len(found.heads) == 4
    assert QRScorer.from_pretrained(folders[kind], found, device="cpu").rank(QUERY, DOCUMENTS).layout == "late"


@KINDS
def test_the_length_exponent_divides_by_tokens(folders, kind):
    plain = scorer_of(folders[kind], calibrate=False, filter_tokens=False)
    tokens = [end - start for start, end in plain.prompt(QUERY, LONG).query.document_spans]
    heads = plain.heads.model_copy(update={"length_exponent": 0.5})
    scaled = scorer_of(folders[kind], heads, calibrate=False, filter_tokens=False)
    expected = [score / count**0.5 for score, count in zip(in_order(plain.rank(QUERY, LONG)), tokens, strict=True)]
    assert in_order(scaled.rank(QUERY, LONG)) == pytest.approx(expected, rel=1e-5)


def test_a_head_set_holds_its_exponent_within_reason():
    fields = {"model": "m", "config": HeadShape(layers=2, heads=2, kv_heads=2, hidden=8), "template": "bare"}
    fields |= {"criterion": "c", "data": "d", "heads": [(0, 0, None)], "layout": "late"}
    assert HeadSet(**fields, length_exponent=0.25).length_exponent == 0.25
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(Exception, match="length_exponent"):
            HeadSet(**fields, length_exponent=wrong)


def test_a_decoder_needs_something_before_documents(folders):
    with pytest.raises(InputError, match=r"needs something before documents.*template='plain'"):
        scorer_of(folders["llama"], template="bare").rank(QUERY, DOCUMENTS)


def test_more_tokens_fit_than_in_other_layouts():
    assert prompt_limit("late", 512, None) > prompt_limit("independent", 512, None)
    assert prompt_limit("late", 512, 1000) == 1000


def test_only_documents_without_tokens_score_nothing(folders):
    ranking = scorer_of(folders["bert"]).rank(QUERY, [Document(""), Document("")])
    assert [hit.score for hit in ranking] == [0.0, 0.0]
    assert torch.isfinite(torch.tensor([hit.relevance for hit in ranking])).all()


def test_an_encoder_takes_queries_longer_than_its_positions(folders):
    """In parts, all of whose rows count; documents and query share no positions."""
    scorer = scorer_of(folders["bert"], calibrate=False)
    assert scorer.context == 512
    longest = Document(" ".join(f"word{n % 90}" for n in range(220)))
    assert 400 < scorer.lengths([longest])[0] < 511
    words = " ".join(("tide", "river", "bridge", "lamp", "oven", "stone", "morning")[n % 7] for n in range(600))
    ranking = scorer.rank(words, [longest, *LONG])
    assert ranking.segments == 1
    parts, suffix = [], scorer.prompt(words, LONG).query.suffix
    for start in range(0, len(suffix), 510):
        text = scorer.tokenizer.decode(suffix[start : start + 510])
        parts.append((len(suffix[start : start + 510]), scorer.token_masses(text, LONG).mass))
    whole = scorer.token_masses(words, LONG).mass
    expected = sum(count * mass for count, mass in parts) / sum(count for count, _ in parts)
    assert torch.allclose(whole, expected, rtol=0, atol=1e-5)


def test_a_decoder_counts_positions_of_documents_and_query(folders, monkeypatch):
    scorer = scorer_of(folders["llama"])
    monkeypatch.setattr(scorer.reader.layout, "_positions", 100)
    with pytest.raises(ContextLengthError, match=r"take 428 positions.* has 100: encode documents in shorter parts"):
        scorer.rank(QUERY, LONG)


def test_positions_behind_a_padding_row_are_fewer(save_encoder):
    """The last documents and queries that fit are ranked, what is longer is refused, or encoded in parts."""
    scorer = scorer_of(save_encoder("roberta"), calibrate=False)
    words = [" ".join(["tide"] * count) for count in (300, 480, 509)]
    for text in words:
        assert 0 <= scorer.rank(text, [text])[0].relevance <= 1
    assert scorer.reader.layout.positions(scorer.model.at_depth(0)) == scorer.context - 1 == 511
    with pytest.raises(ContextLengthError, match=r"take 512 positions.* has 511: encode documents in shorter parts"):
        scorer.rank(QUERY, [" ".join(["tide"] * 510)])


@KINDS
def test_a_query_that_the_tokenizer_makes_nothing_of_looks_at_nothing(folders, kind):
    scorer = scorer_of(folders[kind], template="bare" if kind == "bert" else None, calibrate=False)
    ranking = scorer.rank("\u200b", DOCUMENTS) if kind == "bert" else scorer.rank("\u200b", DOCUMENTS[:1])
    assert len(ranking) == (3 if kind == "bert" else 1)
    if kind == "bert":
        assert [hit.score for hit in ranking] == [0.0] * 3


@KINDS
def test_scorers_that_share_a_cache_are_told_apart_where_documents_have_no_tokens(folders, kind):
    cache = DocumentCache()
    for heads in ("1-1", "2-2,2-3"):
        ranking = scorer_of(folders[kind], heads, document_cache=cache).rank(QUERY, ["", ""])
        assert [hit.score for hit in ranking] == [0.0, 0.0]


def test_detection_keeps_the_exponent(folders):
    scorer = scorer_of(folders["bert"], "all")
    scaled = scorer.with_heads(scorer.heads.model_copy(update={"length_exponent": 0.5}), "scaled")
    examples = [Example(str(n), QUERY, tuple(DOCUMENTS), (0,)) for n in range(2)]
    assert detect_heads(scaled, examples, "ndcg", num_heads=2).heads.length_exponent == 0.5
