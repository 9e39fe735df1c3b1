"""What the tests of this room share: documents, some of them hostile, and what stands on a page."""

from __future__ import annotations

import io
from html.parser import HTMLParser

from rich.console import Console

from qr_core.explain import Explanation

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> & <b>bold</b>"
DOCUMENTS = [
    {"title": "Refunds", "text": "Money reaches your card within five working days.", "id": "kb-2"},
    {"title": HOSTILE, "text": HOSTILE, "id": HOSTILE},
    "Our office is closed on public holidays.",
    "",
]
QUERY = "How long does a refund take?"

ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "header", "h1", "p", "fieldset", "legend", "label", "input",
    "button", "output", "main", "article", "h2", "span", "small", "b", "meter", "script",
}  # fmt: skip


class Page(HTMLParser):
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


def printed(explained: Explanation, **options) -> str:
    console = Console(record=True, width=100, file=io.StringIO(), highlight=False, markup=False)
    explained.show(console, **options)
    return console.export_text()
