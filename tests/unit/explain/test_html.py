"""The page: text of documents stays text, and it works in a real browser."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from qr_core import Document
from tests.unit.explain.pages import ALLOWED, DOCUMENTS, HOSTILE, QUERY, Page


def test_text_of_documents_stays_text(found):
    html = found.to_html()
    page = Page()
    page.feed(html)
    assert set(page.tags) <= ALLOWED
    assert page.scripts == 2
    assert HOSTILE in "".join(page.text)
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", html)
    assert "default-src 'none'" in html
    framed = found._repr_html_()
    assert framed.startswith('<iframe sandbox="allow-scripts"')
    inside = Page.__new__(Page)
    HTMLParser.__init__(inside)
    inside.tags, inside.scripts, inside.text = [], 0, []
    HTMLParser.feed(inside, framed)
    assert inside.tags == ["iframe"]


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


def test_lone_surrogates_can_be_saved(found, tmp_path):
    """As `rank` takes them: the replacement character stands for each."""
    one = replace(found.documents[0], document=Document("word \ud800 word", "t\udfff"))
    odd = replace(found, documents=(one,), ranking=replace(found.ranking, query="q\udc80"))
    odd.save_html(tmp_path / "page.html")
    assert "word \ufffd" in re.sub("<[^>]*>", "", (tmp_path / "page.html").read_text("utf-8"))
    odd._repr_html_().encode()
    json.dumps(odd.to_dict()).encode()
