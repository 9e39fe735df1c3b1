"""Checkpoints as people have them: sharded, offloaded, quantised, merged, in half precision, gated, with code."""

from __future__ import annotations

import json
import shutil
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
    BitsAndBytesConfig,
    LlamaConfig,
    MambaConfig,
    Qwen3NextConfig,
)
from transformers.cache_utils import Fp8QuantizedLayer

from qr_core import HeadSetError, InputError, ModelLoadError, NonFiniteError, QRScorer
from qr_core.attention import prefill
from qr_core.attention.loaded import facts_of
from qr_core.attention.quantized import quantized
from qr_core.cache.reads import ReadCache
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


def test_a_missing_shard_is_an_error(tmp_path):
    folder = resaved(tmp_path / "sharded", max_shard_size="200KB")
    sorted(folder.glob("model-*.safetensors"))[0].unlink()
    with pytest.raises(ModelLoadError, match="cannot load the weights"):
        tiny(folder).rank(QUERY, DOCUMENTS)


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
def test_int8_folder(tmp_path, save_tiny):
    source = save_tiny(LlamaConfig(**COMMON, head_dim=8))
    config = BitsAndBytesConfig(load_in_8bit=True)
    model = AutoModelForCausalLM.from_pretrained(source, quantization_config=config, device_map="cpu")
    model.save_pretrained(tmp_path / "int8")
    AutoTokenizer.from_pretrained(source).save_pretrained(tmp_path / "int8")
    full = captured_masses(tiny(source), QUERY, DOCUMENTS)[0]
    scorer = tiny(tmp_path / "int8")
    small = captured_masses(scorer, QUERY, DOCUMENTS)[0]
    assert type(scorer.reader.model.at_depth(0).layers[0].self_attn.q_proj).__name__ == "Linear8bitLt"
    assert 0 < float((full - small).abs().max()) < 0.1


def test_keys_and_values_kept_in_a_quantised_cache():
    options = {"backend": "fp8"}  # the one that needs no further package
    folder, documents = GOLDEN / "tiny-llama", DOCUMENTS * 4
    exact, small = tiny(folder), tiny(folder, quantized_cache=options)
    full = captured_masses(exact, QUERY, documents)[0]
    cache = ReadCache()
    asked = small.prompt(QUERY, documents)
    first = small.masses([asked], cache)[0].raw
    assert not torch.equal(full, first)
    assert float(torch.corrcoef(torch.stack([full.flatten(), first.flatten()]))[0, 1]) > 0.95
    assert torch.equal(small.masses([asked], cache)[0].raw, first)  # query passes leave what is kept alone
    kept = small.model.at_depth(3).config, asked.query.before
    whole = prefill.prefill(small.model.at_depth(3), torch.tensor([kept[1]]), 3)
    assert quantized(whole, kept[0], options).bytes < 0.26 * whole.bytes
    # Who asks for exact scores does not get what was kept quantised.
    assert torch.equal(exact.masses([asked], cache)[0].raw, exact.masses([asked])[0].raw)


def test_a_quantised_cache_of_a_model_with_sliding_windows(save_tiny):
    """Which transformers' own quantised caches refuse: here all keys are kept, and windows live in the mask."""
    folder = save_tiny(FAMILIES["ministral"]())
    exact, small = tiny(folder, "1-1,3-3"), tiny(folder, "1-1,3-3", quantized_cache={"backend": "fp8"})
    full, kept = (captured_masses(one, QUERY, DOCUMENTS)[0] for one in (exact, small))
    assert not torch.equal(full, kept)
    assert float(torch.corrcoef(torch.stack([full.flatten(), kept.flatten()]))[0, 1]) > 0.95


@pytest.mark.parametrize("options", [{"backend": "zip"}, {"backend": "fp8", "nbits": 4}, {"bits": 4}])
def test_a_strange_quantised_cache_is_refused(options):
    with pytest.raises(InputError, match="quantized_cache="):
        tiny(GOLDEN / "tiny-llama", quantized_cache=options)


def test_a_quantised_cache_that_the_shape_does_not_go_with(monkeypatch):
    def refuse(*_):
        raise ValueError("Group size (64) must be a divisor of (7136)")

    monkeypatch.setattr(Fp8QuantizedLayer, "update", refuse)
    with pytest.raises(InputError, match="does not go with this model: Group size"):
        tiny(GOLDEN / "tiny-llama", quantized_cache={"backend": "fp8"}).rank(QUERY, DOCUMENTS)


def test_a_quantised_cache_is_for_the_joint_layout():
    with pytest.raises(InputError, match="layout='joint'"):
        tiny(GOLDEN / "tiny-llama", quantized_cache={"backend": "fp8"}, layout="independent")


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


def test_code_in_a_folder_does_not_run_unless_asked(tmp_path):
    folder = tmp_path / "custom"
    shutil.copytree(GOLDEN / "tiny-llama", folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.MineConfig", "AutoModel": "mine.MineModel"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
        "from transformers import LlamaConfig, LlamaModel\n"
        "class MineConfig(LlamaConfig):\n    model_type = 'mine'\n"
        "class MineModel(LlamaModel):\n    config_class = MineConfig\n"
    )
    with pytest.raises(ModelLoadError, match="trust_remote_code"):
        tiny(folder)
    assert not (tmp_path / "ran").exists()
    assert len(tiny(folder, trust_remote_code=True).rank(QUERY, DOCUMENTS)) == 3
    assert (tmp_path / "ran").exists()


def test_a_gated_repository_says_so(monkeypatch):
    def gated(*args, **kwargs):
        raise OSError("You are trying to access a gated repo.\nMake sure to have access to it.")

    monkeypatch.setattr(models.AutoConfig, "from_pretrained", gated)
    with pytest.raises(ModelLoadError, match=r"org/gated: You are trying to access a gated repo.*your access"):
        tiny("org/gated")


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


def test_a_model_without_attention_is_refused(save_tiny):
    folder = save_tiny(MambaConfig(vocab_size=1920, hidden_size=32, num_hidden_layers=2, state_size=4))
    with pytest.raises(ModelLoadError, match="does not describe a decoder with attention heads"):
        tiny(folder, "0-0")


def test_linear_attention_layers_are_refused():
    from qr_core.attention.layers import check_readable_layers, layers_of

    kinds = layers_of(Qwen3NextConfig(num_hidden_layers=8))
    assert [layer.attends for layer in kinds] == [False, False, False, True] * 2
    with pytest.raises(HeadSetError, match=r"layer 1 of m is linear attention.*other layers than 0, 1, 2, 4"):
        check_readable_layers(kinds, [1, 3], "m")
    with pytest.raises(HeadSetError, match=r"mixes attention with linear layers \(0, 1, 2\)"):
        check_readable_layers(kinds, [3], "m")


def test_linear_attention_is_refused_by_the_public_way(save_tiny):
    config = Qwen3NextConfig(
        **COMMON, head_dim=8, linear_num_value_heads=2, linear_num_key_heads=2, linear_key_head_dim=8,
        linear_value_head_dim=8, num_experts=2, num_experts_per_tok=1, moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
    )  # fmt: skip
    with pytest.raises(HeadSetError, match=r"layer 1 of .* is linear attention"):
        tiny(save_tiny(config), "1-1")


def test_a_slow_tokenizer_is_refused_by_the_public_way(tmp_path):
    resaved(tmp_path)
    for file in tmp_path.glob("tokenizer*"):
        file.unlink()
    (tmp_path / "vocab.json").write_text(json.dumps({"<unk>": 0, "a": 1, "b</w>": 2}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b</w>\n")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CTRLTokenizer"}))
    with pytest.raises(ModelLoadError, match="slow tokenizer without character offsets"):
        tiny(tmp_path)


@pytest.mark.parametrize("field", ["num_kv_shared_layers", "keep_window_size"])
def test_layers_without_keys_of_their_own_are_refused(tmp_path, field):
    resaved(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, field: 2}))
    with pytest.raises(ModelLoadError, match="not supported"):
        tiny(tmp_path)


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
