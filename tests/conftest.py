"""Fixtures: tiny models saved to disk, the golden cases, and the embedded scorer."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: a test that reaches for the network fails

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from qr_core import QRScorer
from qr_core.cache.documents import SHARED_DOCUMENTS
from qr_core.cache.reads import SHARED
from qr_core.cli.main import main
from qr_core.generation import EndpointGenerator
from tests.architectures import ENCODERS
from tests.helpers import strict
from tests.stub_endpoint import serving
from tests.tokenizers import framing_tokenizer

torch.set_num_threads(1)  # tiny models run slower on more

GOLDEN = Path(__file__).parent / "golden"


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(autouse=True)
def _nothing_kept():
    """No test finds what another one read."""
    SHARED.clear()
    SHARED_DOCUMENTS.clear()


@pytest.fixture(scope="session")
def embedded() -> QRScorer:
    """The embedded model, loaded once."""
    return QRScorer.from_pretrained(device="cpu")


@pytest.fixture(scope="session")
def embedded_fast() -> QRScorer:
    """The embedded decoder, loaded once: for what an encoder cannot do."""
    return QRScorer.from_pretrained("embedded-fast", device="cpu")


@pytest.fixture(scope="session")
def golden() -> dict:
    """Golden file by family."""
    return {
        family: json.loads(gzip.decompress((GOLDEN / f"{family}.json.gz").read_bytes()))
        for family in ("llama", "qwen2")
    }


@pytest.fixture(scope="session")
def save_tiny(tmp_path_factory):
    """Save a model made from a config, with the tokenizer of a golden model, and return its folder."""

    def save(config, tokenizer: str = "tiny-qwen2", seed: int = 0) -> Path:
        folder = tmp_path_factory.mktemp("model")
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config).to(torch.float32)
        for name, parameter in model.named_parameters():
            if "q_norm" in name or "k_norm" in name:  # norms of 1 would hold attention near uniform
                parameter.data.mul_(3)
            if "sinks" in name:
                parameter.data.normal_(20, 5)
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(GOLDEN / tokenizer).save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def save_encoder(tmp_path_factory):
    """Save an encoder made from a config, with a tokenizer that frames texts, and return its folder."""

    def save(kind: str) -> Path:
        folder = tmp_path_factory.mktemp("encoder")
        torch.manual_seed(0)
        AutoModel.from_config(ENCODERS[kind][0]()).to(torch.float32).save_pretrained(folder)
        framing_tokenizer().save_pretrained(folder)
        return folder

    return save


@pytest.fixture
def run(monkeypatch, capsys):
    """Call the command in this process; returns status, standard output and standard error."""

    def call(*args: str, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["qrhead", *args])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as left:
            main()
        captured = capsys.readouterr()
        return int(left.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture
def evaluated(run):
    """Run the command; returns the report, which must be strict JSON."""

    def call(*args) -> dict:
        status, printed, err = run(*map(str, args), "--format", "json")
        assert status == 0, err
        return strict(printed)

    return call


@pytest.fixture
def stub():
    """A server that speaks the OpenAI chat protocol; see `tests/stub_endpoint.py`."""
    with serving() as server:
        yield server


@pytest.fixture
def endpoint(stub, monkeypatch):
    """Make generators for the stub, or for another server, that hardly pause between tries."""
    monkeypatch.setattr("qr_core.generation.endpoint.PAUSE_SECONDS", 0.001)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)
    made = []

    def make(server=stub, **options) -> EndpointGenerator:
        made.append(EndpointGenerator(server.url, **options))
        return made[-1]

    yield make
    for generator in made:
        generator._client.close()
