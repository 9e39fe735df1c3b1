"""Behaviours that both adapters share: async calls, many callers at once, one model for all, pickle and copies."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from langchain_qrhead import QRHeadCompressor
from llama_index.core.schema import MetadataMode
from llama_index.postprocessor.qrhead import QRHeadRerank

from tests.integrations.frameworks import PRUNE, TEXTS, LangChain, LlamaIndex


async def watched(work):
    """Await `work`; returns what it returns and the longest that the loop was kept from a waiting timer, in seconds."""
    largest, stop = 0.0, asyncio.Event()

    async def watch():
        nonlocal largest
        while not stop.is_set():
            clock = time.perf_counter()
            await asyncio.sleep(0.001)
            largest = max(largest, time.perf_counter() - clock - 0.001)

    watcher = asyncio.create_task(watch())
    found = await work
    stop.set()
    await watcher
    return found, largest


def test_10_async_leaves_the_loop_free(framework):
    adapter = framework.make()
    given = framework.given([f"{t} Variation {i}." for i in range(60) for t in TEXTS])
    clock = time.perf_counter()
    expected = framework.run(adapter, given)
    took = time.perf_counter() - clock
    found, stall = asyncio.run(watched(framework.arun(adapter, given)))
    print(f"{framework.name}: {took:.2f} s of work, largest stall of the loop {stall * 1000:.0f} ms")
    assert found == expected
    assert asyncio.run(framework.arun(adapter, given)) == expected  # a second loop: nothing is bound to the first


def test_11_many_callers_get_their_own_answers(framework):
    adapter = framework.make()
    jobs = [
        (f"Where is the house of number {i}?", [f"House number {j} is in street {j * 7}." for j in range(i, i + 5)])
        for i in range(25)
    ]
    expected = [framework.run(adapter, framework.given(texts), query) for query, texts in jobs]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda job: framework.run(adapter, framework.given(job[1]), job[0]), jobs))
    assert found == expected

    async def fifty():
        return await asyncio.gather(*(framework.arun(adapter, framework.given(d), query) for query, d in jobs * 2))

    found, stall = asyncio.run(watched(fifty()))
    print(f"{framework.name}: fifty tasks, largest stall of the loop {stall * 1000:.0f} ms")
    assert found == expected * 2


def test_11_cancelling_leaves_the_scorer_usable(framework):
    adapter = framework.make()
    expected = framework.run(adapter, framework.given())

    async def main():
        tasks = [asyncio.create_task(framework.arun(adapter, framework.given(TEXTS * 20))) for _ in range(5)]
        await asyncio.sleep(0.02)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return await framework.arun(adapter, framework.given())

    assert asyncio.run(main()) == expected


def test_12_one_model_for_both_frameworks():
    compressor, rerank = QRHeadCompressor(), QRHeadRerank()
    ours = {out.id: out.score for out in LangChain().run(compressor, LangChain().given())}
    theirs = {out.id: out.score for out in LlamaIndex().run(rerank, LlamaIndex().given())}
    assert ours == theirs
    assert compressor.scorer.reader.model is rerank.scorer.reader.model
    assert QRHeadCompressor()._scorer is None


def test_12_many_threads_make_one_scorer(framework):
    adapter = framework.make()
    found = []
    threads = [threading.Thread(target=lambda: found.append(adapter.scorer)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(scorer) for scorer in found}) == 1


def test_15_pickle_and_copies(framework):
    adapter = framework.make(top_n=2, score_threshold=0.01, heads="8-4,5-1")
    expected = framework.run(adapter, framework.given())  # with its model loaded
    raw = pickle.dumps(adapter)
    assert len(raw) < 2000
    for again in (pickle.loads(raw), copy.deepcopy(adapter), copy.copy(adapter)):  # noqa: S301 - our own bytes
        assert type(again) is framework.make
        assert framework.run(again, framework.given()) == expected
    assert copy.deepcopy(adapter).scorer.reader.model is adapter.scorer.reader.model


def test_15_llama_index_dictionaries():
    adapter = QRHeadRerank(top_n=2, metadata_mode=MetadataMode.NONE, **PRUNE)
    again = QRHeadRerank.from_dict(json.loads(json.dumps(adapter.to_dict())))
    assert again.to_dict() == adapter.to_dict()
    assert again.metadata_mode == MetadataMode.NONE
    assert QRHeadRerank.from_json(adapter.to_json()).top_n == 2
