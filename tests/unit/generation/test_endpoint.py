"""Endpoints: a stub of the OpenAI chat protocol that answers, fails and misbehaves."""

from __future__ import annotations

import gzip
import sys

import pytest

from qr_core import GenerationError, InputError
from qr_core.generation import EndpointGenerator
from tests.stub_endpoint import completion


def test_a_429_and_a_server_error_are_tried_again(stub, endpoint):
    stub.script = [(429, {"error": "busy"}, 0), (500, {"error": "oops"}, 0), (200, completion("Blue."), 0)]
    assert endpoint(model="stub").generate("q") == "Blue."
    assert len(stub.seen) == 3


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ((429, {"error": {"message": "slow down"}}, 0), "answered with status 429"),
        ((401, {"error": {"message": "no key"}}, 0), "answered with status 401"),
        ((200, b"not json {", 0), "is not a chat completion"),
        ((200, {"choices": []}, 0), "is not a chat completion"),
        ((200, {"surprise": 1}, 0), "is not a chat completion"),
        ((200, completion(None), 0), "holds no text"),
        ((200, completion("late"), 2), "did not answer in time"),
    ],
)
def test_failures_are_one_clear_error(stub, endpoint, step, words):
    stub.script = [step]
    with pytest.raises(GenerationError, match=words):
        endpoint(model="stub", timeout=0.3, retries=0).generate("q")
    stub.script = [(200, completion("Blue."), 0)]
    assert endpoint(model="stub").generate("q") == "Blue."


def test_which_model_an_endpoint_uses_must_be_clear(stub, endpoint):
    stub.models = ["one", "two"]
    with pytest.raises(InputError, match=r"serves 2 models \(one, two\): name one"):
        endpoint().generate("q")


def test_an_unreachable_endpoint():
    generator = EndpointGenerator("http://127.0.0.1:9/v1", "m", retries=0)
    with pytest.raises(GenerationError, match="cannot be reached"):
        generator.generate("q")
    generator._client.close()
    with pytest.raises(InputError, match="no http"):
        EndpointGenerator("localhost:8000")


def test_a_time_out_is_tried_again(stub, endpoint):
    stub.script = [(200, completion("late"), 1.5), (200, completion("Blue."), 0)]
    assert endpoint(model="stub", timeout=0.3, retries=1).generate("q") == "Blue."
    assert len(stub.seen) == 2
    stub.script = [(200, completion("late"), 1.5)]
    stub.seen.clear()
    with pytest.raises(GenerationError, match="did not answer in time"):
        endpoint(model="stub", timeout=0.3, retries=2).generate("q")
    assert len(stub.seen) == 3


@pytest.mark.parametrize(
    "step", [(200, b"<html>busy</html>", 0), (200, {"choices": []}, 0), (200, completion(None), 0)]
)
def test_a_malformed_reply_is_tried_again(stub, endpoint, step):
    stub.script = [step, step, (200, completion("Blue."), 0)]
    assert endpoint(model="stub").generate("q") == "Blue."
    stub.script = [step]
    stub.seen.clear()
    with pytest.raises(GenerationError, match="the reply of"):
        endpoint(model="stub", retries=1).generate("q")
    assert len(stub.seen) == 2


@pytest.mark.parametrize("body", [b"[" * 200_000, b"<html>busy</html>", b'{"choices": [{"message":', b"\xff\xfe"])
def test_replies_that_are_no_json(stub, endpoint, body):
    stub.script = [(200, body, 0)]
    with pytest.raises(GenerationError, match="is not a chat completion"):
        endpoint(model="stub", retries=0).generate("q")


def test_lone_surrogates_reach_an_endpoint_as_replacement_characters(stub, endpoint):
    assert endpoint(model="stub").generate("caf\udce9?") == "Blue."
    assert stub.seen[0]["messages"][0]["content"] == "caf\ufffd?"


@pytest.mark.parametrize("url", ["http://x:y/v1", "https://", "http://x:0/v1", "ftp://x/v1"])
def test_addresses_that_are_none(url):
    with pytest.raises(InputError, match="no http"):
        EndpointGenerator(url)


def test_a_missing_openai_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(InputError, match=r"openai is missing: pip install 'qrhead\[ask\]'"):
        EndpointGenerator("http://localhost:8000/v1")


@pytest.mark.parametrize("status", [200, 400, 401])
def test_a_reply_without_end_is_not_read(stub, endpoint, monkeypatch, status):
    monkeypatch.setattr("qr_core.generation.endpoint.REPLY_BYTES", 100_000)
    stub.script = [(status, b" " * 50_000_000, 0)]
    with pytest.raises(GenerationError, match="the reply is larger than 100000 bytes"):
        endpoint(model="stub", retries=0).generate("q")
    assert stub.sent < 40_000_000
    stub.models = ["m" * 200_000]
    with pytest.raises(GenerationError, match="the reply is larger than 100000 bytes"):
        endpoint(retries=0).generate("q")


def test_a_reply_that_unpacks_is_refused(stub, endpoint):
    stub.headers = {"Content-Encoding": "gzip"}
    stub.script = [(200, gzip.compress(b" " * 10_000_000), 0)]
    with pytest.raises(GenerationError, match="the reply is compressed, though"):
        endpoint(model="stub", retries=0).generate("q")


def test_redirects_are_not_followed(stub, endpoint):
    stub.headers = {"Location": f"{stub.url}/elsewhere"}
    stub.script = [(307, {}, 0), (200, completion("Blue."), 0)]
    with pytest.raises(GenerationError, match="answered with status 307"):
        endpoint(model="stub", retries=0).generate("q")
    assert len(stub.seen) == 1
