"""Explanations: words and their masses, the page, the terminal, and the page in a real browser."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from qr_core import Document, QRScorer
from qr_core.explain.explanation import Explanation
from tests.helpers import GOLDEN

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> & <b>bold</b>"
DOCUMENTS = [
    {"title": "Refunds", "text": "Money reaches your card within five working days.", "id": "kb-2"},
    {"title": HOSTILE, "text": HOSTILE, "id": HOSTILE},
    "Our office is closed on public holidays.",
    "",
]
QUERY = "How long does a refund take?"


@pytest.fixture(scope="module")
def found(embedded) -> Explanation:
    return embedded.explain(QUERY, DOCUMENTS)


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
    page = _Page()
    page.feed(explained.to_html())
    assert page.scripts == 2
    assert set(page.tags) <= ALLOWED


@pytest.mark.parametrize("order", ["given", "reversed"])
def test_a_document_read_in_parts_is_explained_whole(order):
    scorer = QRScorer.from_pretrained(device="cpu", passage_tokens=40, layout="joint", filter_tokens=False)
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
    assert "more documents" in _printed(explained)


ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "header", "h1", "p", "fieldset", "legend", "label", "input",
    "button", "output", "main", "article", "h2", "span", "small", "b", "meter", "script",
}  # fmt: skip


class _Page(HTMLParser):
    """Collects tags, and how many scripts there are."""

    def __init__(self):
        super().__init__()
        self.tags, self.scripts, self.text = [], 0, []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.scripts += tag == "script"
        assert not any(name.startswith("on") or name in ("src", "href") for name, _ in attrs)

    def handle_data(self, data):
        self.text.append(data)


def test_text_of_documents_stays_text(found):
    html = found.to_html()
    page = _Page()
    page.feed(html)
    assert set(page.tags) <= ALLOWED
    assert page.scripts == 2
    assert HOSTILE in "".join(page.text)
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", html)
    assert "default-src 'none'" in html
    framed = found._repr_html_()
    assert framed.startswith('<iframe sandbox="allow-scripts"')
    inside = _Page.__new__(_Page)
    HTMLParser.__init__(inside)
    inside.tags, inside.scripts, inside.text = [], 0, []
    HTMLParser.feed(inside, framed)
    assert inside.tags == ["iframe"]


def test_notebooks_show_rankings_and_prunings_as_text(embedded, found):
    tables = found.ranking._repr_html_() + embedded.prune(QUERY, [HOSTILE, *"abc"], max_tokens=80)._repr_html_()
    page = _Page()
    page.feed(tables)
    assert set(page.tags) <= {"table", "caption", "small", "tr", "th", "td", "b", "meter", "p", "pre"}
    assert HOSTILE in "".join(page.text)


def _printed(explained, **options) -> str:
    console = Console(record=True, width=100, file=io.StringIO(), highlight=False, markup=False)
    explained.show(console, **options)
    return console.export_text()


def test_the_terminal_gets_no_control_characters(embedded):
    explained = embedded.explain("refund", ["\x1b[31m refund \x1b[0m \u202eevil [bold]refund[/bold]", "other"])
    text = _printed(explained)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "bold]refund[/bold" in text


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


CHROMIUM = next((path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None)


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@needs_chromium
def test_the_page_in_a_browser(found, tmp_path):
    """Toggles work, words tell their value by mouse and keyboard, nothing in a document runs, nothing is requested."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    page_file = tmp_path / "heat.html"
    found.save_html(page_file)
    asked, errors = [], []
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1000, "height": 800})
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(page_file.as_uri())
        assert page.title() == QUERY
        assert page.locator("article").count() == len(DOCUMENTS)
        shades = "[...document.querySelectorAll('.w')].map((w) => w.style.background)"
        before = page.evaluate(shades)
        assert any(before)
        page.locator("[data-head]").first.uncheck()
        assert page.evaluate(shades) != before
        page.locator("#none").click()
        assert not any(page.evaluate(shades))
        page.locator("#all").click()
        assert page.evaluate(shades) == before
        page.locator("article .w").nth(3).hover()
        assert re.fullmatch(r"\S+: -?\d\.\d{4}( \(.*\))?", page.locator("#value").inner_text())
        assert page.locator("article .q").all_inner_texts() == []  # no word of the question is in these documents
        page.locator("article .w").first.focus()
        page.keyboard.press("ArrowRight")
        told = page.locator("#value").inner_text()
        assert told.startswith(page.evaluate("document.activeElement.textContent"))
        artefacts = Path(os.environ.get("QRHEAD_ARTEFACTS", tmp_path))
        page.screenshot(path=str(artefacts / "explanation.png"))
        browser.close()
    assert asked == [page_file.as_uri()]
    assert errors == []


@needs_chromium
def test_the_page_in_a_notebooks_frame(found, tmp_path):
    """The frame works by itself, cannot reach the notebook around it, and a script put into the page does not run."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    notebook = tmp_path / "notebook.html"
    notebook.write_text(f"<!doctype html><title>notebook</title>{found._repr_html_()}", encoding="utf-8")
    forged = tmp_path / "forged.html"
    script = "<script>document.title='owned';fetch('https://example.org')</script>"
    forged.write_text(found.to_html().replace("<main>", f"<main><img src='https://example.org/x.png'>{script}"))
    refused = {}
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.on("requestfailed", lambda request: refused.update({request.url: request.failure}))
        page.goto(notebook.as_uri())
        inside = page.frame_locator("iframe")
        inside.locator("#none").click()
        assert inside.locator("[data-head]:checked").count() == 0
        reached = "() => { try { return parent.document.title } catch (error) { return error.name } }"
        assert page.frames[1].evaluate(reached) == "SecurityError"
        page.goto(forged.as_uri())
        assert page.title() == QUERY
        browser.close()
    assert refused == {"https://example.org/x.png": "csp"}  # by the page's own policy, not for want of a network


def test_words_of_the_question_are_marked(embedded):
    html = embedded.explain("Is the amber light on?", ["Amber is the LIGHT of the evening.", " "]).to_html()
    assert re.findall(r'<span class="w q" data-w="\d+">(\w+)</span>', html) == ["Amber", "LIGHT"]
    assert html.count("(empty)") == 1
    assert html.count("<meter") == 2
