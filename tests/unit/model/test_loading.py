"""Checkpoints as people have them: sharded, offloaded, merged, in half precision, pickled; and the device picked."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
)

from qr_core import ModelLoadError, NonFiniteError, QRScorer
from qr_core.attention.loaded import facts_of
from qr_core.model import loading as models
from qr_core.model import shared
from tests.architectures import COMMON, FAMILIES
from tests.helpers import DOCUMENTS, GOLDEN, QUERY, captured_masses, eager_masses, eager_model, in_order

HEADS = "2-1,3-3,1-7"


def tiny(folder, heads=HEADS, **options) -> QRScorer:
    return QRScorer.from_pretrained(folder, heads, template="plain", device="cpu", **options)


@pytest.fixture(scope="module")
def expected() -> list[float]:
    return in_order(tiny(GOLDEN / "tiny-llama").rank(QUERY, DOCUMENTS))


def resaved(folder, **options):
    AutoModelForCausalLM.from_pretrained(GOLDEN / "tiny-llama").save_pretrained(folder, **options)
    AutoTokenizer.from_pretrained(GOLDEN / "tiny-llama").save_pretrained(folder)
    return folder


def test_sharded_weights(tmp_path, expected):
    folder = resaved(tmp_path / "sharded", max_shard_size="200KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 3
    assert in_order(tiny(folder).rank(QUERY, DOCUMENTS)) == expected


@pytest.mark.parametrize("where", [{"": "cpu"}, {"embed_tokens": "cpu", "rotary_emb": "cpu", "norm": "cpu"}])
def test_device_map(expected, where):
    """Weights on the CPU, or layers that come from disk one by one and go back when they are done."""
    device_map = where if "" in where else where | {f"layers.{i}": "disk" if i in (1, 3) else "cpu" for i in range(4)}
    scorer = tiny(GOLDEN / "tiny-llama", device_map=device_map)
    for _ in range(2):
        assert in_order(scorer.rank(QUERY, DOCUMENTS)) == pytest.approx(expected, abs=1e-6)
    model = scorer.reader.model.at_depth(0)
    assert facts_of(model).offloaded == ("" not in where)
    if "" not in where:  # the last layer read is back on disk too
        assert model.layers[3].self_attn.q_proj.weight.device.type == "meta"


@pytest.mark.filterwarnings("ignore")
def test_a_merged_adapter(tmp_path):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(GOLDEN / "tiny-llama")
    adapted = get_peft_model(base, LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    adapted.merge_and_unload().save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(GOLDEN / "tiny-llama").save_pretrained(tmp_path)
    plain, merged = (tiny(folder).rank(QUERY, DOCUMENTS) for folder in (GOLDEN / "tiny-llama", tmp_path))
    assert in_order(plain) != in_order(merged)
    every = QRScorer.from_pretrained(tmp_path, "all", template="plain", device="cpu")
    found, prompt = captured_masses(every, QUERY, DOCUMENTS)
    eager = eager_masses(eager_model(tmp_path), prompt.ids, prompt.query_start).flatten(0, 1)
    assert torch.allclose(found, eager, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen2", "qwen3_moe"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(save_tiny, family, dtype):
    """Masses stay near float32's; the figures are printed (`pytest -s`)."""
    config = FAMILIES[family]()
    config.initializer_range = 0.1
    folder = save_tiny(config)
    full, half = (
        captured_masses(tiny(folder, "3-1,1-2,1-5", dtype=d), QUERY, DOCUMENTS)[0] for d in ("float32", dtype)
    )
    assert half.dtype == torch.float32
    error = float((full - half).abs().max())
    agree = float(
        torch.corrcoef(torch.stack([full.argsort().argsort().flatten(), half.argsort().argsort().flatten()]))[0, 1]
    )
    print(f"{family} {dtype}: largest error {error:.1e} of {float(full.max()):.2f}, rank correlation {agree:.3f}")
    assert error < 0.05
    assert agree > 0.9


def test_overflow_in_half_precision_names_the_layer(save_tiny):
    folder = save_tiny(LlamaConfig(**COMMON, head_dim=8))
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.1.self_attn.k_proj.weight"
    save_file(weights | {name: weights[name] * 1e4}, folder / "model.safetensors")
    assert len(tiny(folder).rank(QUERY, DOCUMENTS)) == 3
    with pytest.raises((NonFiniteError, ModelLoadError), match=r"layer \d"):
        tiny(folder, dtype="float16").rank(QUERY, DOCUMENTS)


def test_pickled_weights_are_refused_unless_allowed(tmp_path, expected):
    folder = resaved(tmp_path / "pickled")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelLoadError, match="cannot load the weights"):
        tiny(folder).rank(QUERY, DOCUMENTS)
    assert in_order(tiny(folder, allow_pickle=True).rank(QUERY, DOCUMENTS)) == expected


def test_the_revision_reaches_every_part(monkeypatch):
    seen = []

    def note(kind, function):
        def call(*args, **kwargs):
            seen.append((kind, kwargs["revision"]))
            return function(*args, **kwargs)

        return call

    for kind, module in {"AutoConfig": models, "AutoTokenizer": models, "AutoModel": shared}.items():
        owner = getattr(module, kind)
        monkeypatch.setattr(owner, "from_pretrained", note(kind, owner.from_pretrained))
    tiny(GOLDEN / "tiny-llama", revision="abc123").rank(QUERY, DOCUMENTS)
    assert {kind for kind, _ in seen} == {"AutoConfig", "AutoTokenizer", "AutoModel"}
    assert {revision for _, revision in seen} == {"abc123"}


MEMORY = """
import sys
import torch
from qr_core import QRScorer
from qr_core.parallel.usage import resident
torch.set_num_threads(1)
scorer = QRScorer.from_pretrained(sys.argv[1], sys.argv[2], template="plain", device="cpu")
before = resident()
scorer.reader.model.at_depth(scorer.heads.deepest)
print(resident() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_upper_layers_take_no_memory(save_tiny):
    """Measured from outside, in a process for each depth."""
    config = {**COMMON, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 16, "head_dim": 64}
    folder = save_tiny(LlamaConfig(**config))
    grown = {}
    for deepest in (3, 15):
        command = [sys.executable, "-c", MEMORY, str(folder), f"{deepest}-1"]
        grown[deepest] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    print(f"4 of 16 layers: {grown[3] / 2**20:.0f} MiB, all: {grown[15] / 2**20:.0f} MiB")
    assert grown[3] < 0.5 * grown[15]


def test_spellings_of_one_source_share_one_copy(tmp_path, monkeypatch):
    resaved(tmp_path / "m")
    monkeypatch.chdir(tmp_path)
    one = tiny(tmp_path / "m")
    for name, options in (("m", {}), (f"{tmp_path}/m/", {}), ("m", {"dtype": "float32"})):
        assert tiny(name, **options).reader.model is one.reader.model
    other = QRScorer.from_pretrained("m", HEADS, template="plain", device="cpu:0")
    assert other.reader.model is one.reader.model
    assert tiny("m", dtype="bfloat16").reader.model is not one.reader.model


def test_device_map_by_name(expected):
    assert in_order(tiny(GOLDEN / "tiny-llama", device_map="auto").rank(QUERY, DOCUMENTS)) == pytest.approx(expected)


def test_the_best_device_is_picked(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert models.pick_device(None) == models.pick_device("auto") == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert models.pick_device(None) == "mps"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert models.pick_device(None) == "cpu"


def test_half_precision_without_instructions_for_it_is_read_as_float32(tmp_path, monkeypatch):
    resaved(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    for has, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(models, "_cpu_has_bfloat16", lambda has=has: has)
        scorer = tiny(tmp_path)
        scorer.rank(QUERY, DOCUMENTS)
        assert scorer.reader.model.at_depth(0).dtype == dtype
        del scorer


def test_loads_side_by_side_leave_transformers_logging_alone(save_tiny):
    from transformers.utils import logging

    before = logging.get_verbosity()
    folders = [save_tiny(FAMILIES[family]()) for family in ("llama", "qwen2", "qwen3", "gemma")]
    for _ in range(3):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda folder: tiny(folder, dtype="float32").rank(QUERY, DOCUMENTS), folders))
        assert logging.get_verbosity() == before


@pytest.mark.parametrize("options", [{}, {"quantized_cache": {"backend": "fp8"}}, {"layout": "independent"}])
def test_an_offloaded_model_that_is_deeper_than_the_heads(options):
    """It was loaded for others; all its layers are run, and what those above the heads see does not matter."""
    layers = {f"layers.{i}": "disk" if i in (1, 3) else "cpu" for i in range(4)}
    device_map = {"embed_tokens": "cpu", "rotary_emb": "cpu", "norm": "cpu"} | layers
    options = options | {"cache_bytes": 0}
    whole = in_order(tiny(GOLDEN / "tiny-llama", "1-3", **options).rank(QUERY, DOCUMENTS))
    deep = tiny(GOLDEN / "tiny-llama", "3-3", device_map=device_map, **options)
    deep.rank(QUERY, DOCUMENTS)
    shallow = tiny(GOLDEN / "tiny-llama", "1-3", device_map=device_map, **options)
    assert in_order(shallow.rank(QUERY, DOCUMENTS)) == pytest.approx(whole, abs=1e-6)
    assert shallow.reader.model.loaded_layers == 4


def test_documents_of_an_offloaded_model_are_kept_in_memory_only(tmp_path):
    """Weights on disk show no values to know the model by."""
    layers = {f"layers.{i}": "disk" if i in (1, 3) else "cpu" for i in range(4)}
    device_map = {"embed_tokens": "cpu", "rotary_emb": "cpu", "norm": "cpu"} | layers
    options = {"layout": "independent", "document_cache": tmp_path / "cache"}
    offloaded = tiny(GOLDEN / "tiny-llama", device_map=device_map, **options)
    whole = in_order(tiny(GOLDEN / "tiny-llama", layout="independent").rank(QUERY, DOCUMENTS))
    for _ in range(2):
        assert in_order(offloaded.rank(QUERY, DOCUMENTS)) == pytest.approx(whole, abs=1e-6)
    assert len(offloaded.document_cache) == len(DOCUMENTS) + 1
    assert list((tmp_path / "cache").iterdir()) == []
