"""Notebooks: rankings and pruned texts as HTML, with everything that came from documents escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from qr_core.display.wording import encodable

if TYPE_CHECKING:
    from qr_core.types import Pruned, Ranking

SHOWN = 50
"""Hits of a ranking."""
BEGINNING = 160
"""Characters of a document."""


def ranking_html(ranking: Ranking) -> str:
    """A table of the best hits: place, id, relevance, score, and the beginning of the document."""
    rows = []
    for place, hit in enumerate(ranking[:SHOWN], start=1):
        name = f"#{hit.index}" if hit.document.id is None else str(hit.document.id)
        title = f"<b>{escape(hit.document.title)}</b> " if hit.document.title else ""
        text = hit.document.text
        start = escape(text[:BEGINNING]) + ("…" if len(text) > BEGINNING else "")
        bar = f'<meter value="{hit.relevance:.3f}" title="{hit.relevance:.3f}"></meter>'
        rows.append(
            f"<tr><td>{place}</td><td>{escape(name)}</td><td>{bar} {hit.relevance:.3f}</td>"
            f'<td>{hit.score:.4f}</td><td style="text-align:left">{title}{start}</td></tr>'
        )
    head = "".join(f"<th>{name}</th>" for name in ("#", "id", "relevance", "score", "document"))
    about = f"{escape(ranking.query)} <small>({escape(ranking.model)}, heads {escape(ranking.heads)})</small>"
    more = f"<p>and {len(ranking) - SHOWN} more</p>" if len(ranking) > SHOWN else ""
    return encodable(f"<table><caption>{about}</caption><tr>{head}</tr>{''.join(rows)}</table>{more}")


def pruned_html(pruned: Pruned) -> str:
    """What is kept, and how much of the whole that is."""
    about = f"kept {pruned.kept_tokens} of {pruned.total_tokens} tokens for: {pruned.query}"
    whole = f'<p><small>{escape(about)}</small></p><pre style="white-space:pre-wrap">{escape(pruned.text)}</pre>'
    return encodable(whole)
