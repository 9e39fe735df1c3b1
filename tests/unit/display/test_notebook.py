"""Rankings and pruned texts in notebooks: what came from documents stays text."""

from __future__ import annotations

from qr_core.types import Document, Hit, Pruned, Ranking
from tests.unit.explain.pages import DOCUMENTS, HOSTILE, QUERY, Page


def test_notebooks_show_rankings_and_prunings_as_text(embedded):
    ranking = embedded.rank(QUERY, DOCUMENTS)
    tables = ranking._repr_html_() + embedded.prune(QUERY, [HOSTILE, *"abc"], max_tokens=80)._repr_html_()
    page = Page()
    page.feed(tables)
    assert set(page.tags) <= {"table", "caption", "small", "tr", "th", "td", "b", "meter", "p", "pre"}
    assert HOSTILE in "".join(page.text)


def test_a_long_ranking_and_a_long_document_are_cut():
    hits = tuple(Hit(place, 0.0, 0.0, Document("word " * 100)) for place in range(60))
    html = Ranking("q", hits, "m", "h")._repr_html_()
    assert html.count("<meter") == 50
    assert "and 10 more" in html
    assert "word " * 33 not in html


def test_lone_surrogates_are_replaced():
    hit = Hit(0, 0.0, 0.0, Document("a\ud800b", "t\udfff", "i\udc80"))
    ranking = Ranking("q\ud800", (hit,), "m", "h")
    for html in (ranking._repr_html_(), Pruned("q\ud800", ((0, "a\ud800"),), (), 1, 1, "m", "h")._repr_html_()):
        assert "\ufffd" in html.encode().decode()
