"""Independent layout: order, windows, prune, detection, the command line."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qr_core import ContextLengthError, Document, Example, HeadSet, HeadSetError, InputError, QRScorer, detect_heads
from qr_core.cache import documents as documents_module
from qr_core.cache.documents import DocumentCache
from tests.helpers import DOCUMENTS, GOLDEN, QUERY, in_order

OPTIONS = {"template": "plain", "device": "cpu", "dtype": "float32", "layout": "independent", "cache_bytes": 0}
HEADS = "1-1,2-2"


def scorer_of(model: str = "tiny-llama", heads: str = HEADS, **options) -> QRScorer:
    return QRScorer.from_pretrained(GOLDEN / model, heads, **OPTIONS | options)


@pytest.fixture(scope="module")
def tiny() -> QRScorer:
    return scorer_of()


def test_lone_surrogates_are_scored(tiny):
    assert len(tiny.rank("where \ud83d?", ["a \ud83d b", "c"])) == 2


def test_the_query_follows_the_longest_document(tiny):
    asked = tiny.prompt(QUERY, [*DOCUMENTS, Document("one two " * 40)]).query
    lengths = [end - start for start, end in asked.parts]
    positions = asked.positions()
    assert asked.query_position == asked.instruction + max(lengths) == positions[asked.query_start]
    assert {int(positions[start]) for start, _ in asked.parts} == {asked.instruction}
    assert asked.reach == positions.max() + 1 < len(asked.ids)


def test_order_does_not_matter_to_what_is_kept():
    """The content-free query's mass is kept for the next call, which may have the documents in another order."""
    embedded = QRScorer.from_pretrained("embedded-fast", device="cpu")
    assert embedded.calibrate
    given_ = in_order(embedded.rank(QUERY, DOCUMENTS))
    back = list(reversed(range(len(DOCUMENTS))))
    turned = in_order(embedded.rank(QUERY, [DOCUMENTS[n] for n in back]))
    assert turned == pytest.approx([given_[n] for n in back], abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_order_does_not_matter(tiny, data):
    documents = [*DOCUMENTS, Document(""), Document("x"), DOCUMENTS[1], Document("Ferries leave at noon.", "Ferries")]
    order = data.draw(st.permutations(range(len(documents))))
    given_ = in_order(tiny.rank(QUERY, documents))
    shuffled = in_order(tiny.rank(QUERY, [documents[n] for n in order], order=data.draw(st.sampled_from(ORDERS))))
    assert shuffled == pytest.approx([given_[n] for n in order], abs=1e-5)


ORDERS = ["given", "reversed"]


def test_equal_documents_score_the_same_and_empty_ones_nothing(tiny):
    scores = in_order(tiny.rank(QUERY, [DOCUMENTS[0], Document(""), DOCUMENTS[0]]))
    assert scores[0] == pytest.approx(scores[2], abs=1e-6)
    assert scores[1] == 0.0
    assert in_order(tiny.rank(QUERY, ["", ""])) == [0.0, 0.0]
    assert len(tiny.rank(QUERY, [])) == 0


def test_empty_documents_do_not_change_the_others():
    tiny = QRScorer.from_pretrained("embedded-fast", layout="independent", device="cpu", dtype="float32")
    alone = in_order(tiny.rank(QUERY, DOCUMENTS))
    beside = in_order(tiny.rank(QUERY, ["", *DOCUMENTS, " "]))
    assert beside[1:4] == pytest.approx(alone, abs=1e-6)


def test_the_layout_is_the_head_sets_unless_named(tmp_path):
    fields = HeadSet.load(OWN).model_dump() | {
        "layout": "independent",
        "max_prompt_tokens": 300,
        "passage_tokens": 100,
    }
    heads = HeadSet(**fields)
    heads.save(tmp_path / "heads.json")
    assert HeadSet.load(tmp_path / "heads.json") == heads
    found = QRScorer.from_pretrained("embedded-fast", heads=tmp_path / "heads.json", device="cpu")
    assert (found.layout, found.limit, found.passage_tokens) == ("independent", 300, 100)
    assert found.rank(QUERY, DOCUMENTS).layout == "independent"
    joint = QRScorer.from_pretrained("embedded-fast", heads=heads, layout="joint", device="cpu")
    assert joint.layout == "joint"
    assert joint.limit != 300  # found to hold for the other layout only
    assert joint.passage_tokens is None
    assert joint.rank(QUERY, DOCUMENTS).to_dict()["layout"] == "joint"
    assert found.with_heads(heads, "same").layout == "independent"


OWN = documents_module.__file__.replace("cache/documents.py", "mini/fast/qrhead_heads.json")


def test_options_are_checked(tmp_path):
    with pytest.raises(InputError, match="use one of joint, independent"):
        scorer_of(layout="both")
    with pytest.raises(InputError, match="layout='independent'"):
        scorer_of(layout="joint", document_cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    with pytest.raises(HeadSetError, match="layout"):
        HeadSet(**HeadSet.load(OWN).model_dump() | {"layout": "both"})


def test_many_documents_take_few_positions():
    """Only instruction, longest document and query must fit the context; tokens in all have a bound of their own."""
    tiny = scorer_of()
    documents = [Document(f"Room {i} is cold and has a view of the yard.") for i in range(60)]
    asked = tiny.prompt(QUERY, documents)
    tiny._context = asked.reach
    assert tiny._context * 10 < asked.tokens
    expected = tiny.rank(QUERY, documents)
    assert (expected.windows, expected.rounds) == (1, 1)
    context = tiny._context
    tiny = tiny.with_options(max_prompt_tokens=300)
    tiny._context = context + 64  # windows have pieces of any length
    ranking = tiny.rank(QUERY, documents)
    assert ranking.windows > 1
    assert sorted(hit.index for hit in ranking) == list(range(60))


def test_a_document_over_the_context_is_cut():
    tiny = scorer_of()
    long = " ".join(f"Room {i} is cold and has a view of the yard." for i in range(60))
    overhead = tiny.prompt(QUERY, []).tokens
    tiny._context = overhead + 100
    ranking = tiny.rank(QUERY, [long, *DOCUMENTS])
    assert sorted(hit.index for hit in ranking) == [0, 1, 2, 3]
    assert ranking.windows > 1
    tiny._context = overhead + 20
    with pytest.raises(ContextLengthError, match="44 too many"):
        tiny.rank(QUERY, DOCUMENTS * 10)


def test_progress_counts_every_token_once(tiny):
    documents = [*DOCUMENTS, Document("A new one that nobody has read.")]
    length = tiny.prompt(QUERY, documents).query.query_start
    for told in ([], []):  # cold, then from the cache
        tiny.rank(QUERY, documents, progress=lambda *now, told=told: told.append(now))
        assert length - 20 <= told[-1][0] <= length
        assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_prune_keeps_original_text(tiny):
    text = "\n\n".join(document.text for document in DOCUMENTS)
    pruned = tiny.prune(QUERY, text, max_tokens=30)
    assert pruned.layout == pruned.to_dict()["layout"] == "independent"
    assert pruned.kept_tokens <= 30
    assert pruned.spans
    for span in pruned.spans:
        assert text[span.start : span.end] in pruned.text
    by_document = tiny.prune(QUERY, DOCUMENTS, top_k=2, unit="document")
    assert [index for index, _ in by_document.texts] == sorted(hit.index for hit in tiny.rank(QUERY, DOCUMENTS)[:2])


def test_unit_scores_add_the_passages_own(tiny):
    ranked, _, _ = tiny.score_units(QUERY, [DOCUMENTS[0]], unit="sentence")
    found = tiny.token_masses(QUERY, [Document(DOCUMENTS[0].text, DOCUMENTS[0].title)])
    assert len(ranked) == 2
    assert found.mass.shape[1] == found.prompt.query_start


def test_rank_many_reads_documents_once(tiny, monkeypatch):
    joins = []
    joined = documents_module.joined
    monkeypatch.setattr(documents_module, "joined", lambda *args: joins.append(1) or joined(*args))
    jobs = [(query, DOCUMENTS) for query in (QUERY, "Who baked?", "Who built the bridge, and of what? " * 40)]
    together = tiny.rank_many(jobs)
    assert len(joins) == 1
    for (query, documents), ranking in zip(jobs, together, strict=True):  # the last is longer than the room left
        assert in_order(ranking) == pytest.approx(in_order(tiny.rank(query, documents)), abs=1e-6)


def test_the_null_query_is_not_calibrated_by_itself(tiny):
    ranking = tiny.rank("N/A", DOCUMENTS)
    assert not ranking.calibrated
    assert all(hit.score > 0 for hit in ranking)


def test_detection_under_the_layout_records_it(tmp_path):
    examples = [Example(str(n), QUERY, tuple(DOCUMENTS), (n % 3,)) for n in range(3)]
    found = detect_heads(GOLDEN / "tiny-llama", examples, num_heads=2, work=tmp_path / "work", **OPTIONS)
    assert found.heads.layout == "independent"
    found.heads.save(tmp_path / "heads.json")
    again = QRScorer.from_pretrained(GOLDEN / "tiny-llama", tmp_path / "heads.json", device="cpu")
    assert again.layout == "independent"
    joint = OPTIONS | {"layout": "joint"}
    with pytest.raises(InputError, match="layout"):  # the work of one layout is not the other's
        detect_heads(GOLDEN / "tiny-llama", examples, num_heads=2, work=tmp_path / "work", **joint)


def test_the_command_line_takes_the_layout(run, tmp_path):
    lines = "\n".join(json.dumps({"text": document.text}) for document in DOCUMENTS).encode()
    options = [
        "--model",
        "embedded-fast",
        "--layout",
        "independent",
        "--document-cache",
        str(tmp_path / "cache"),
        "--format",
        "json",
    ]
    status, out, _ = run("rank", "--query", QUERY, "--docs", "-", *options, stdin=lines)
    assert status == 0
    assert json.loads(out)["layout"] == "independent"
    assert len(list((tmp_path / "cache").iterdir())) == 3
    status, out, _ = run("cache", "show", str(tmp_path / "cache"), "--format", "json")
    assert json.loads(out)["documents"] == 3
    status, out, _ = run("prune", "--query", QUERY, "--file", "-", "--max-tokens", "30", *options, stdin=b"A. B.")
    assert json.loads(out)["layout"] == "independent"
    (tmp_path / "cache" / "notes.txt").write_text("mine")
    status, out, _ = run("cache", "purge", str(tmp_path / "cache"))
    assert "removed 4 documents" in out
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["notes.txt"]
    status, _, err = run("cache", "show", str(tmp_path / "none"))
    assert status == 2
    assert "cannot read the document cache" in err


def test_nothing_is_kept_with_a_cache_of_no_bytes():
    tiny = scorer_of(document_cache=DocumentCache(0))
    tiny.rank(QUERY, DOCUMENTS)
    assert len(tiny.document_cache) == tiny.document_cache.bytes == 0


def test_products_of_keys_with_room_behind_them_are_those_of_a_copy():
    import torch

    from qr_core.attention.capture import _products

    torch.manual_seed(0)
    keys = torch.randn(1, 2, 40, 8).to(torch.bfloat16)[:, :, :33]
    assert not keys.is_contiguous()
    rows = torch.randn(1, 2, 5, 8).to(torch.bfloat16)
    for right in (keys.transpose(2, 3), keys):
        left = rows if right.shape[-2] == 8 else torch.randn(1, 2, 5, 33).to(torch.bfloat16)
        expected = torch.matmul(left.float(), right.float())
        assert torch.allclose(_products(left, right).float(), expected, rtol=0.02, atol=0.02)
