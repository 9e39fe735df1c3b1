"""Names and origins: pages of other sites reach no server of this machine, whatever name they ask by."""

from __future__ import annotations

import json

import httpx
import pytest

from qr_core import InputError
from qr_core.server import Settings, create_app
from tests.helpers import QUERY

BODY = {"query": QUERY, "documents": ["a lamp", "an oven"]}


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.9.9.9:1", "[::1]:8080"])
def test_names_of_this_machine(live, host):
    assert live.post("/v1/rerank", BODY, headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["rebound.example", "rebound.example:80", "192.0.2.1", "localhost.example", "[", "localhost@x", ""]
)
def test_foreign_names_are_refused_before_anything_is_read(live, host):
    for path in ("/v1/rerank", "/health", "/metrics", "/other"):
        answer = live.client.request("POST" if "rank" in path else "GET", path, headers={"host": host})
        assert answer.status_code == 403
        assert answer.json()["error_type"] == "forbidden"
        assert "--allowed-hosts" in answer.json()["message"]


@pytest.mark.parametrize("origin", ["https://example.org", "http://localhost:3000", "null", "", "http://[", "file://"])
def test_pages_of_other_sites_are_refused(live, origin):
    headers = {"origin": origin, "access-control-request-method": "POST"}
    for answer in (live.post("/v1/rerank", BODY, headers=headers), live.client.options("/v1/rerank", headers=headers)):
        assert answer.status_code == 403
        assert not any(name.startswith("access-control") for name in answer.headers)


def test_own_pages_and_forms_without_an_origin(live):
    assert live.post("/v1/rerank", BODY, headers={"origin": live.url}).status_code == 200
    simple = live.client.post("/v1/rerank", content=json.dumps(BODY))
    assert simple.status_code == 415  # what a page may send without asking first is not taken


def test_allowed_names(serve):
    server = serve(allowed_hosts=("rank.example",))
    assert server.post("/v1/rerank", BODY, headers={"host": "Rank.Example:443"}).status_code == 200
    assert server.post("/v1/rerank", BODY, headers={"origin": "https://rank.example:444"}).status_code == 200
    assert server.post("/v1/rerank", BODY, headers={"host": "other.example"}).status_code == 403
    for wrong in ("rank.example", ("https://rank.example",), ("rank.example:80",), ("*",), ("",), (3,)):
        with pytest.raises(InputError, match="allowed_hosts"):
            Settings(allowed_hosts=wrong)


async def test_addresses_that_others_reach_have_any_name_unless_told(tiny):
    for settings, status in ((Settings(), 200), (Settings(allowed_hosts=("rank.example",)), 403)):
        transport = httpx.ASGITransport(create_app(tiny, settings))  # the server's address is that of the request
        async with httpx.AsyncClient(transport=transport, base_url="http://192.0.2.1") as client:
            assert (await client.get("/health", headers={"host": "any.example"})).status_code == status
