"""Explanation as a page: ranked documents, words shaded by attention, heads to switch on and off.

One file without network, fonts or scripts from elsewhere; its own script is allowed by its hash alone, so nothing that
stands in a document can run. Shades differ in lightness, so that nobody has to tell colours apart.
"""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from qr_core.checks import encodable
from qr_core.explain.words import WORD
from qr_core.heads.pairs import format_pairs

if TYPE_CHECKING:
    from qr_core.explain.explanation import ExplainedDocument, Explanation

DIGITS = 3
"""Significant digits of the masses in a page."""
SHORTEST = 4
"""Letters of a question's word that is underlined where documents have it."""
NAME_CHARACTERS = 80
"""Of a document's id."""


def page(found: Explanation) -> str:
    """The page, as HTML; lone surrogates, which no file can hold, are U+FFFD."""
    beside = files("qr_core.explain.page")
    style, script = (beside.joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; script-src 'sha256-{allowed}'; style-src 'unsafe-inline'; base-uri 'none'"
    ranking = found.ranking
    heads = "".join(
        f'<label><input type="checkbox" checked data-head="{place}"> {format_pairs([head])}</label>'
        for place, head in enumerate(found.heads)
    )
    left_out = len(ranking) - len(found.documents)
    note = f"<p>The best {len(found.documents)} of {len(ranking)} documents.</p>" if left_out else ""
    kind = "attention on the question minus that on N/A" if ranking.calibrated else "attention"
    asked = {word.casefold() for word in WORD.findall(ranking.query) if len(word) >= SHORTEST}
    documents = "".join(_document(place, one, asked) for place, one in enumerate(found.documents, start=1))
    return encodable(f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width"><title>{escape(_line(ranking.query))}</title>
<style>{style}</style></head><body>
<header><h1>{escape(ranking.query)}</h1>
<p>{escape(ranking.model)}, heads {escape(ranking.heads)}. Shade: {kind}, <span class="scale"><span>less</span>
<span>more</span></span>. <span class="q">Underlined</span>: words of the question. Point at a word for its value, or go
from word to word with the arrow keys.</p>
<fieldset><legend>Heads (layer-head)</legend>{heads}
<button type="button" id="all">all</button> <button type="button" id="none">none</button></fieldset>{note}
<output id="value" aria-live="polite">&nbsp;</output></header>
<main>{documents}</main>
<script type="application/json" id="masses">{_data(found)}</script>
<script>{script}</script></body></html>
""")


def frame(found: Explanation) -> str:
    """The page inside an isolated frame, for a notebook."""
    inside = escape(page(found), quote=True)
    look = "width:100%;height:32rem;border:1px solid #ccc"
    return f'<iframe sandbox="allow-scripts" srcdoc="{inside}" style="{look}"></iframe>'


def _document(place: int, found: ExplainedDocument, asked: set[str]) -> str:
    name = _line(str(found.document.id)) if found.document.id is not None else f"document {found.index}"
    name = name if len(name) <= NAME_CHARACTERS else f"{name[: NAME_CHARACTERS - 1]}…"
    title = _line(found.document.title or "")
    head = (
        f'<span class="w" data-w="-1">{escape(title)}</span> <small>{escape(name)}</small>' if title else escape(name)
    )
    text = _words(found, asked) if found.document.text.strip() else '<span class="empty">(empty)</span>'
    return (
        f'<article><h2><span class="place">{place}</span><span class="name">{head}</span> <small class="scores">'
        f'<meter value="{found.relevance:.3f}"></meter> relevance <b>{found.relevance:.3f}</b>, score '
        f"{found.score:.4f}</small></h2><p>{text}</p></article>"
    )


def _words(found: ExplainedDocument, asked: set[str]) -> str:
    text, pieces, done = found.document.text, [], 0
    for place, (start, end) in enumerate(found.words):
        pieces.append(escape(text[done:start]))
        kind = "w q" if text[start:end].casefold() in asked else "w"
        pieces.append(f'<span class="{kind}" data-w="{place}">{escape(text[start:end])}</span>')
        done = end
    return "".join([*pieces, escape(text[done:])])


def _line(text: str) -> str:
    return " ".join(text.split())


def _data(found: Explanation) -> str:
    """Masses by document, head and word; the last of each row is that of the title. Safe inside a script element."""
    rows = [np.concatenate([one.masses, one.title_masses[:, None]], axis=1) for one in found.documents]
    largest = max((float(np.abs(row).max()) for row in rows), default=0.0) or 1.0
    values = [[[float(f"{value / largest:.{DIGITS}g}") for value in line] for line in row] for row in rows]
    return json.dumps({"largest": largest, "masses": values}, separators=(",", ":")).replace("<", "\\u003c")
