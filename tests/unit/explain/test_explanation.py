"""Explanations: words and their masses, for any text and any number of documents."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qr_core import Document, QRScorer
from tests.helpers import GOLDEN
from tests.unit.explain.pages import ALLOWED, DOCUMENTS, QUERY, Page, printed


def test_words_are_spans_of_the_text_and_every_tokens_mass_is_in_one(embedded, found):
    assert [one.index for one in found.documents] == [hit.index for hit in found.ranking]
    read = embedded.token_masses(QUERY, [Document(d) if isinstance(d, str) else Document(**d) for d in DOCUMENTS])
    assert len(found.heads) == read.mass.shape[0]
    for one in found.documents:
        assert [one.document.text[a:b] for a, b in one.words] == re.findall(r"\w+|[^\w\s]+", one.document.text)
        first, last = read.prompt.document_spans[one.index]
        total = one.masses.sum(axis=1) + one.title_masses
        assert np.allclose(total, read.mass[:, first:last].sum(dim=1).numpy(), atol=1e-6)


def test_the_strongest_word_is_the_one_that_was_looked_at(embedded):
    explained = embedded.explain("amber light", ["A steady green glow. The amber light blinks twice.", "Bread rises."])
    (best, *_) = explained.documents
    strongest = int(best.masses.sum(axis=0).argmax())
    start, end = best.words[strongest]
    assert best.document.text[start:end] in ("amber", "light")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(max_size=60), min_size=1, max_size=4), st.text(min_size=1, max_size=20).filter(str.strip))
def test_any_text_is_explained(texts, query):
    scorer = QRScorer.from_pretrained(GOLDEN / "tiny-llama", heads="2-1,3-4", template="plain", device="cpu")
    explained = scorer.explain(query, texts)
    assert sorted(one.index for one in explained.documents) == list(range(len(texts)))
    assert all(np.isfinite(one.masses).all() for one in explained.documents)
    json.dumps(explained.to_dict(), allow_nan=False)
    page = Page()
    page.feed(explained.to_html())
    assert page.scripts == 2
    assert set(page.tags) <= ALLOWED


@pytest.mark.parametrize("order", ["given", "reversed"])
def test_a_document_read_in_parts_is_explained_whole(order):
    scorer = QRScorer.from_pretrained(
        "embedded-fast", device="cpu", passage_tokens=40, layout="joint", filter_tokens=False
    )
    short = "Our office is closed on public holidays."
    long = Document(" ".join(f"{short} So it was in year {n}." for n in range(9)), "Title")
    found = scorer.explain(QUERY, [short, long], order=order)
    explained = {one.index: one for one in found.documents}[1]
    assert len(scorer.parts([long])) > 2
    assert "".join(long.text[a:b] for a, b in explained.words) == long.text.replace(" ", "")
    assert list(explained.words) == sorted(explained.words)
    assert explained.masses.shape == (len(found.heads), len(explained.words))
    parts = [part.of([long]) for part in scorer.parts([long])]
    ranking = scorer.rank(QUERY, [short, *parts], order=order)
    every = sum(hit.score for hit in ranking if hit.index)
    assert explained.masses.sum() + explained.title_masses.sum() == pytest.approx(every, abs=1e-4)


def test_only_what_fits_one_prompt_is_explained(found):
    scorer = QRScorer.from_pretrained(device="cpu", max_prompt_tokens=300)
    many = [f"Paragraph {n}: " + "the tide comes in at six. " * 8 for n in range(12)]
    explained = scorer.explain("When does the tide come in?", many)
    assert len(explained.ranking) == 12
    assert 1 <= len(explained.documents) < 12
    assert [one.index for one in explained.documents] == [h.index for h in explained.ranking][
        : len(explained.documents)
    ]
    assert len(scorer.explain("tide", many, top_k=2).documents) <= 2
    assert scorer.explain("tide", []).documents == ()
    assert "more documents" in printed(explained)


def test_the_command(run, tmp_path):
    docs = tmp_path / "docs.jsonl"
    docs.write_text("\n".join(json.dumps(d if isinstance(d, dict) else {"text": d}) for d in DOCUMENTS))
    page = tmp_path / "heat.html"
    status, out, err = run("explain", "--query", QUERY, "--docs", str(docs), "--out", str(page))
    assert (status, out) == (0, "")
    assert "wrote" in err
    assert page.read_text().startswith("<!doctype html>")
    status, out, _ = run("explain", "--query", QUERY, "--docs", str(docs), "--format", "json")
    assert status == 0
    assert json.loads(out)["documents"][0]["words"][0].keys() == {"start", "end", "masses"}
    status, out, _ = run("explain", "--query", QUERY, "--docs", str(docs))
    assert "Refunds" in out
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_text("Refunds take five days.")
    (tmp_path / "folder" / "picture.png").write_bytes(b"\x89PNG\x00\xff")
    status, out, err = run("explain", "--query", QUERY, "--dir", str(tmp_path / "folder"))
    assert (status, "a.txt" in out) == (0, True)
    assert "left out 1 files that are not UTF-8 text: picture.png" in err
    status, _, err = run("explain", "--query", QUERY, "--docs", str(docs), "--out", str(tmp_path / "no" / "x.html"))
    assert status == 2
    assert "cannot write" in err
