"""Ray Serve around the HTTP application, as docs/ray_serve.py has it: `make heavy`."""

from __future__ import annotations

import runpy
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from qr_core import QRScorer

serve = pytest.importorskip("ray.serve")
pytestmark = [pytest.mark.heavy, pytest.mark.filterwarnings("default"), pytest.mark.timeout(900)]

EXAMPLE = Path(__file__).parents[2] / "docs" / "ray_serve.py"
PORT = 18_761


def test_replicas_answer_as_the_library_does(nodes):
    """Two replicas on two nodes; each request gets its own answer, and both replicas get some."""
    example = runpy.run_path(str(EXAMPLE), run_name="ray_serve")
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    try:
        serve.run(example["application"], route_prefix="/")
        scorer = QRScorer.from_pretrained(device="cpu")
        texts = [["The office is closed.", f"Refunds take {n} days.", "Bring your own cup."] for n in range(24)]

        def ask(documents: list[str]) -> httpx.Response:
            body = {"query": "How long does a refund take?", "documents": documents, "return_documents": True}
            return httpx.post(f"http://127.0.0.1:{PORT}/v1/rerank", json=body, timeout=300, trust_env=False)

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(ask, texts))
        for documents, answer in zip(texts, answers, strict=True):
            assert answer.status_code == 200, answer.text
            ranking = scorer.rank("How long does a refund take?", documents)
            results = answer.json()["results"]
            assert [result["index"] for result in results] == [hit.index for hit in ranking]
            found = [result["relevance_score"] for result in results]
            assert found == pytest.approx([hit.relevance for hit in ranking], abs=1e-5)
            assert [result["document"]["text"] for result in results] == [documents[hit.index] for hit in ranking]
        refused = httpx.post(f"http://127.0.0.1:{PORT}/v1/rerank", json={"query": 1}, timeout=60, trust_env=False)
        assert refused.status_code == 422
        assert "query" in refused.json()["message"]
    finally:
        serve.shutdown()
        sys.modules.pop("ray_serve", None)
