"""Very many documents, very long ones, very long queries: a result, or one clear error soon."""

from __future__ import annotations

import resource
import time

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from qr_core import ContextLengthError, Document, QRScorer
from qr_core.attention import capture, chunks, memory, prefill
from tests.helpers import DOCUMENTS, GOLDEN, QUERY, captured_masses, in_order


@pytest.fixture(scope="module")
def tiny() -> QRScorer:
    return QRScorer.from_pretrained(GOLDEN / "tiny-llama", "2-1,4-3,3-5", template="plain", device="cpu")


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def test_ten_thousand_documents(embedded):
    documents = [f"Document number {i} about bridges." for i in range(10_000)]
    documents[7_123] = "The old stone bridge over the Ellin was built by masons from Carrow in 1412."
    clock = time.perf_counter()
    ranking = embedded.rank("Who built the stone bridge over the Ellin?", documents)
    print(
        f"10,000 documents in {time.perf_counter() - clock:.1f} s, {ranking.windows} windows, {ranking.rounds} rounds"
    )
    assert ranking[0].index == 7_123
    assert sorted(hit.index for hit in ranking) == list(range(10_000))
    assert ranking.segments == 1  # of each document a few keys are held


def test_ten_thousand_documents_that_fit(tiny):
    documents = ["x"] * 400 + DOCUMENTS
    assert sorted(hit.index for hit in tiny.rank(QUERY, documents)) == list(range(403))


def test_a_document_of_one_megabyte(embedded):
    before = peak_mib()
    clock = time.perf_counter()
    ranking = embedded.with_options(max_prompt_tokens=60_000).rank(
        "Who built the stone bridge over the Ellin?", ["word " * 200_000, DOCUMENTS[0]]
    )
    print(f"1 MB in {time.perf_counter() - clock:.1f} s; peak memory grew by {peak_mib() - before:.0f} MiB")
    assert sorted(hit.index for hit in ranking) == [0, 1]
    assert ranking.segments > 1


def test_a_query_of_ten_thousand_words():
    """Over the length that the caller asks for, within the model's context."""
    long = "bridge " * 10_000
    with pytest.raises(ContextLengthError, match="raise max_prompt_tokens"):
        QRScorer.from_pretrained("embedded-fast", device="cpu", max_prompt_tokens=8192).rank(long, DOCUMENTS)
    ranking = QRScorer.from_pretrained("embedded-fast", device="cpu").rank(long, DOCUMENTS)
    assert len(ranking) == 3
    assert ranking.windows == 1


def test_a_query_over_the_context():
    embedded = QRScorer.from_pretrained("embedded-fast", device="cpu")
    embedded.rank(QUERY, DOCUMENTS)
    clock = time.perf_counter()
    with pytest.raises(ContextLengthError, match="shorten the query") as caught:
        embedded.rank("word " * 40_000, ["short"])
    print(f"refused after {time.perf_counter() - clock:.2f} s: {caught.value}")


def test_a_query_pass_in_blocks_reads_the_same(tiny, monkeypatch):
    whole, _ = captured_masses(tiny, "Who built the stone bridge across the Ellin? " * 8, DOCUMENTS)
    monkeypatch.setitem(capture.BLOCK_BYTES, "cpu", 1)
    blocks, _ = captured_masses(tiny, "Who built the stone bridge across the Ellin? " * 8, DOCUMENTS)
    assert torch.allclose(whole, blocks, atol=1e-6)


@pytest.fixture(scope="module")
def llama():
    """Of the embedded model's size, without its sliding windows."""
    shape = {"hidden_size": 384, "intermediate_size": 1024, "num_attention_heads": 6, "num_hidden_layers": 2}
    return LlamaForCausalLM._from_config(LlamaConfig(**shape, vocab_size=99)).model.eval()


def test_prefill_in_chunks_keeps_the_same_keys(llama, monkeypatch):
    model = llama.to(torch.bfloat16)
    ids = (torch.arange(3_000) * 37 % 99)[None]
    with torch.inference_mode():
        whole = prefill.prefill(model, ids, 1)
        monkeypatch.setattr(prefill, "chunk_rows", lambda *_: 448)
        pieces = prefill.prefill(model, ids, 1)
    # bfloat16 weights: the values agree to their own rounding (2**-8); test_families compares float32 to 1e-5
    for one, other in zip((*whole.keys, *whole.values), (*pieces.keys, *pieces.values), strict=True):
        assert torch.allclose(one.float(), other.float(), rtol=2**-6, atol=2**-6)
    assert pieces.length == 3_000
    assert pieces.bytes == whole.bytes


def test_chunks_get_smaller_with_longer_prompts(llama):
    rows = [chunks.chunk_rows(llama, tokens) for tokens in (1_000, 10_000, 100_000, 10**7)]
    assert rows == sorted(rows, reverse=True)
    assert rows[0] >= 1_000
    assert rows[2] * 100_000 * 4 <= chunks.CHUNK_BYTES["cpu"]
    assert rows[3] == chunks.SMALLEST_CHUNK


def test_a_prompt_of_bounded_size_is_one_chunk_where_that_needs_no_mask(llama, monkeypatch):
    assert chunks.chunk_rows(llama, 20_000, 1) == 20_000
    assert chunks.chunk_rows(llama, 100_000, 1) == chunks.chunk_rows(llama, 100_000)
    assert chunks.chunk_rows(llama, 20_000) < 20_000
    with monkeypatch.context() as eager:
        eager.setattr(llama.config, "_attn_implementation", "eager")
        assert chunks.chunk_rows(llama, 20_000, 1) < 20_000


class OnGpu:
    """What is asked of a model that stands on a GPU."""

    device, dtype = torch.device("cuda"), torch.bfloat16

    def __init__(self, model, **more):
        self.config, self.hf_device_map = model.config, more

    def modules(self):
        return iter(())


def test_a_prompt_is_one_chunk_where_a_gpu_has_room(llama, monkeypatch):
    """Keys and values of all layers count, and of several devices the fullest; shards of a model must agree."""
    masked = chunks.chunk_rows(OnGpu(llama), 500_000)
    free = {0: 80 * 2**30, 1: 80 * 2**30}
    monkeypatch.setattr(memory, "free_bytes", lambda device: free[device.index or 0])
    spread = OnGpu(llama, **{"embed_tokens": 0, "layers.0": 0, "layers.1": "cuda:1", "norm": "cpu"})
    assert masked < 500_000
    assert chunks.chunk_rows(OnGpu(llama), 500_000, 1) == 500_000
    assert chunks.chunk_rows(OnGpu(llama), 500_000, 100) == masked
    assert chunks.chunk_rows(spread, 500_000, 1) == 500_000
    free[1] = 2**30
    assert chunks.chunk_rows(spread, 500_000, 1) == masked
    assert chunks.chunk_rows(OnGpu(llama), 500_000, 1) == 500_000
    monkeypatch.setattr(chunks, "shards_of", lambda _: 2)
    assert chunks.chunk_rows(OnGpu(llama), 500_000, 1) == masked


def test_only_a_cuda_device_says_what_is_free(monkeypatch):
    assert memory.free_bytes(torch.device("cpu")) == 0
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1_000, 5_000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 300)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 100)
    assert memory.free_bytes(torch.device("cuda")) == 1_200


def test_sliding_layers_need_masks():
    config = MistralConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, sliding_window=64, vocab_size=99)
    model = MistralForCausalLM._from_config(config).model
    assert chunks.chunk_rows(model, 20_000, 1) < 20_000


def test_control_strings_by_the_thousand_are_found_soon(tiny):
    """Finding control tokens in the callers' text costs no more than tokenising it."""
    documents = [Document("<|eot_id|>" * 5) for _ in range(1_000)]
    clock = time.perf_counter()
    prompt = tiny.reader.prompts.build([QUERY], documents)[0]
    print(f"{len(prompt.ids)} tokens in {time.perf_counter() - clock:.2f} s")
    assert not tiny.reader.prompts.tokens.control_ids & set(prompt.ids[1:])


def test_one_empty_document(tiny):
    assert in_order(tiny.rank(QUERY, [""])) != []
