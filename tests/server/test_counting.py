"""Tokens of a request: limits on bytes come before any work, and counting ends soon after a limit is passed."""

from __future__ import annotations

import pytest

from qr_core.server.service import SLICE, TOKEN_BYTES
from tests.helpers import QUERY


@pytest.fixture
def counted(monkeypatch):
    """The lengths of all that a server's tokenizer is given by the counting of tokens."""
    lengths: list[int] = []

    def watch(server, tokens=None):
        real = server.scorer.count_tokens

        def count(text):
            lengths.append(len(text))
            return real(text) if tokens is None else tokens

        monkeypatch.setattr(server.scorer, "count_tokens", count)
        return lengths

    return watch


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/rerank", {"documents": ["x" * 40_000]}),
        ("/v1/rerank", {"documents": ["\u00e9" * 20_000]}),
        ("/v1/rerank", {"documents": [{"text": "a", "title": "x" * 40_000}]}),
        ("/v1/rerank", {"documents": ["x" * 100] * 400}),
        ("/rerank", {"texts": ["x" * 40_000]}),
        ("/v1/prune", {"text": "x" * 40_000, "top_k": 1}),
    ],
)
def test_a_word_without_end_counts_by_its_bytes(serve, counted, path, body):
    """Many a tokenizer takes it for one unknown token."""
    server = serve(max_tokens=2000)
    lengths = counted(server, tokens=1)
    answer = server.post(path, {"query": "q", **body})
    assert answer.status_code == 422
    assert f"at most {2000 * TOKEN_BYTES} are allowed" in answer.json()["error"]
    assert lengths == []


def test_counting_ends_once_there_are_too_many(serve, counted):
    server = serve(max_tokens=30_000)
    lengths = counted(server)
    answer = server.post("/v1/rerank", {"query": "q", "documents": ["lamp " * 80_000]})
    assert answer.status_code == 422
    assert "more than the 30000 tokens allowed" in answer.json()["error"]
    assert max(lengths) <= SLICE
    assert sum(lengths) < 400_000 / 2


def test_words_are_not_cut(live):
    texts = [QUERY, "word " * 20_000, "word\n" * 20_000, " " * 70_000, "lamp \u00e9t\u00e9 " * 9_000]
    for text in texts:
        whole = live.scorer.count_tokens(text)
        assert abs(live.service._count(text, [], lambda: None) - whole) <= len(text) // SLICE
    assert live.service._count(texts[1], [], lambda: None) == live.scorer.count_tokens(texts[1])
