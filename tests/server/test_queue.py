"""The queue: clients take turns, places are shared, and a turn that breaks is an error of its own request."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from qr_core.server import ApiKeys
from qr_core.server.answers import Refusal
from qr_core.server.queue import BrokenTurnError, ScoringQueue
from qr_core.server.turns import Turns
from tests.helpers import QUERY
from tests.server.conftest import until

BODY = {"query": QUERY, "documents": ["a lamp", "an oven"]}


class Panic(BaseException):
    """As a library written in Rust raises it: no `Exception`."""


def test_clients_take_turns_and_keep_their_own_order():
    turns: Turns[str] = Turns()
    for one in ("a1", "a2", "a3", "a4", "b1", "c1", "b2"):
        turns.add(one[0], one)
    assert turns.remove("a", "a2")
    assert not turns.remove("a", "a2")
    assert not turns.remove("d", "d1")
    assert [turns.next() for _ in range(3)] == ["a1", "b1", "c1"]
    turns.add("d", "d1")
    assert [turns.next() for _ in range(5)] == ["a3", "b2", "d1", "a4", None]
    assert len(turns) == 0


def test_places_of_a_full_queue_are_shared():
    turns: Turns[str] = Turns()
    for one in ("a1", "a2", "a3"):
        turns.add("a", one)
    assert turns.make_room("b", 4) is None  # not full
    assert not turns.has_room("a", 3)
    assert turns.has_room("b", 3)
    assert turns.make_room("b", 3) == "a3"
    turns.add("b", "b1")
    assert not turns.has_room("b", 3)  # nobody has two more than the one it would then have
    assert turns.make_room("b", 3) is None
    assert turns.make_room("c", 3) == "a2"


async def test_one_of_many_connections_delays_another_client_by_one_turn():
    queue, go, done = ScoringQueue(64), threading.Event(), []

    def turn(name: str):
        def work(_):
            go.wait()
            done.append(name)

        return work

    asked = [asyncio.ensure_future(queue.run(turn(f"a{n}"), 60, "a")) for n in range(64)]
    await asyncio.sleep(0)
    while queue.waiting < 63:
        await asyncio.sleep(0.001)
    other = asyncio.ensure_future(queue.run(turn("b"), 60, "b"))
    while queue.waiting < 64:
        await asyncio.sleep(0.001)
    late = asyncio.ensure_future(queue.run(turn("c"), 60, "c"))  # the queue is full: the place is one of a's
    refused = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    (crowded_out,) = refused[0]
    assert crowded_out is asked[63]
    with pytest.raises(Refusal, match="64 requests are waiting already"):
        crowded_out.result()
    with pytest.raises(Refusal, match="64 requests are waiting already"):
        await queue.run(turn("a64"), 60, "a")
    go.set()
    await asyncio.gather(other, late, *asked[:63])
    assert done == ["a0", "a1", "b", "c", *(f"a{n}" for n in range(2, 63))]
    queue.close()


async def test_a_turn_may_end_with_anything():
    queue = ScoringQueue(4)

    def panics(_):
        raise Panic("text of a client")

    for _ in range(2):
        with pytest.raises(BrokenTurnError) as caught:
            await queue.run(panics, 60)
        assert isinstance(caught.value.__cause__, Panic)
        assert "text of a client" not in str(caught.value)
    assert (await queue.run(lambda _: 5, 60)).value == 5
    assert (queue.waiting, queue.busy) == (0, False)
    queue.close()


@pytest.mark.parametrize("place", ["scorer.rank", "service.run"])
def test_a_panic_is_a_500_in_json(serve, monkeypatch, log_lines, place):
    """In a turn, and on the event loop."""
    server = serve()

    def broken(*_, **__):
        raise Panic("secret text")

    monkeypatch.setattr(
        *{"scorer.rank": (server.scorer, "rank"), "service.run": (server.service, "run")}[place], broken
    )
    answer = server.post("/v1/rerank", BODY)
    monkeypatch.undo()
    assert answer.status_code == 500
    assert set(answer.json()) == {"error", "error_type", "message", "detail", "id"}
    failure, request = log_lines(1, id=answer.json()["id"])
    assert (failure["event"], request["status"]) == ("failure", 500)
    assert "Panic" in failure["error"] + failure.get("cause", "")
    assert "secret" not in answer.text + json.dumps(log_lines())
    assert 'qrhead_requests_total{endpoint="/v1/rerank",status="500"} 1.0' in server.client.get("/metrics").text
    assert server.post("/v1/rerank", BODY).status_code == 200


def test_one_key_with_many_connections_starves_no_other(serve, hold):
    server = serve(keys=ApiKeys([("anna", "k-anna"), ("ben", "k-ben")]), max_queue=8)
    held = hold(server)

    def ask(key: str) -> int:
        return server.post("/v1/rerank", BODY, headers={"authorization": f"Bearer {key}"}).status_code

    with ThreadPoolExecutor(12) as pool:
        many = [pool.submit(ask, "k-anna") for _ in range(9)]
        until(lambda: held.begun == 1 and server.service.queue.waiting == 8)
        other = pool.submit(ask, "k-ben")
        until(lambda: any(one.done() for one in many))  # the latest gives up its place
        held.go.set()
        assert other.result() == 200
        assert sorted(one.result() for one in many) == [200] * 8 + [429]
