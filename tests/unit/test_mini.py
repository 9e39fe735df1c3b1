"""The embedded model: what ships, that it is useful, and that the script beside it trains."""

from __future__ import annotations

import gzip
import json
import random

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from qr_core import QRScorer
from qr_core.inputs import documents_from_json_lines
from qr_core.mini import data, train
from qr_core.scorer import embedded_model
from tests.helpers import captured_masses, eager_masses, flat_heads


def test_it_is_small_and_carries_its_card():
    folder = embedded_model()
    assert sum(file.stat().st_size for file in folder.iterdir()) < 45e6
    assert not list(folder.glob("*.bin"))
    card = (folder.parent / "README.md").read_text()
    for words in ("all-MiniLM-L6-v2", "Apache-2.0", "CC BY-SA", "sha256"):
        assert words in card


def test_it_loads_as_an_ordinary_causal_model():
    model = AutoModelForCausalLM.from_pretrained(embedded_model(), dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(embedded_model())
    assert type(model).__name__ == "LlamaForCausalLM"
    made = model.generate(**tokenizer("Here are some", return_tensors="pt", add_special_tokens=False), max_new_tokens=5)
    assert made.shape[1] <= 8


def test_it_takes_the_code_path_of_a_big_model():
    """Its captured mass equals eager attention, as for any other model."""
    scorer = QRScorer.from_pretrained(device="cpu", dtype="float32")
    documents = documents_from_json_lines('{"text": "The bridge has six arches."}\n{"text": "Rye bread at five."}', "")
    found, prompt = captured_masses(scorer, "How many arches?", documents)
    model = AutoModelForCausalLM.from_pretrained(embedded_model(), attn_implementation="eager", dtype=torch.float32)
    expected = eager_masses(model, prompt.ids, prompt.query_start)
    for row, (layer, head) in zip(found, flat_heads(scorer), strict=True):
        assert torch.allclose(row, expected[layer, head], atol=1e-5)


@pytest.mark.parametrize(
    ("query", "best"),
    [
        ("how many arches does the bridge have", 0),
        ("At what time does the baker start?", 1),
        ("who painted the portrait of the duke", 3),
    ],
)
def test_it_finds_answers(embedded, query, best):
    documents = [
        "The old stone bridge over the Ellin has six arches.",
        "Every morning at five the baker lights the oven.",
        "Ships wait outside the harbour until the tide comes in.",
        "The duke's portrait was painted by Anna Lindqvist in 1790.",
        "Rain is expected in the north, with strong winds in the evening.",
    ]
    for order in ("given", "reversed"):
        assert embedded.rank(query, documents, order=order)[0].index == best


def write(path, rows):
    path.write_bytes(gzip.compress("\n".join(json.dumps(row) for row in rows).encode()))


@pytest.fixture
def training_data(tmp_path):
    """A few lines in each of the three formats."""
    folder = tmp_path / "data"
    folder.mkdir()
    words = [
        "river",
        "stone",
        "lamp",
        "bread",
        "tide",
        "oven",
        "bridge",
        "storm",
        "ship",
        "baker",
        "light",
        "tower",
        "north",
        "wind",
        "rain",
    ]
    rng = random.Random(0)
    sentence = lambda: " ".join(rng.choices(words, k=9)).capitalize() + "."  # noqa: E731
    text = lambda: " ".join(sentence() for _ in range(6))  # noqa: E731
    sources = ("nqg", "squadshifts_new_wiki", "squadshifts_reddit")
    write(
        folder / "qa.jsonl.gz",
        [
            {"source": s, "title": f"t{i % 3}", "passage": text(), "questions": [sentence()]}
            for s in sources
            for i in range(90)
        ],
    )
    passages = lambda n: [{"title": "t", "text": text()} for _ in range(n)]  # noqa: E731
    write(
        folder / "multihop.jsonl.gz",
        [{"question": sentence(), "positives": passages(2), "negatives": passages(4)} for _ in range(50)],
    )
    write(
        folder / "books.jsonl.gz",
        [{"book": f"b{i // 8}", "chapter": i, "text": text() * 5, "events": [sentence()]} for i in range(400)],
    )
    return folder


def test_packs_are_well_formed(training_data):
    rng = random.Random(3)
    packs = data.Packs(training_data)
    for _ in range(60):
        pack = packs.draw(rng)
        assert 3 <= len(pack.passages) <= data.PACK_PASSAGES
        assert pack.questions
        for _, golds in pack.questions:
            assert golds
            assert all(0 <= gold < len(pack.passages) for gold in golds)


def test_held_out_packs_share_no_book_with_training(training_data):
    trained, held = data.Packs(training_data), data.Packs(training_data, held_out=True)
    assert not set(trained.kinds["books"].names) & set(held.kinds["books"].names)


def test_no_data_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"qa\.jsonl\.gz"):
        data.Packs(tmp_path)


@pytest.fixture
def initial_model(tmp_path):
    """A folder as all-MiniLM-L6-v2's: a WordPiece tokenizer and word embeddings, here tiny and random."""
    from safetensors.torch import save_file

    folder = tmp_path / "init"
    folder.mkdir()
    tokenizer = embedded_model() / "tokenizer.json"
    (folder / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    size = len(AutoTokenizer.from_pretrained(embedded_model()))
    embeddings = torch.randn(size, 32, generator=torch.Generator().manual_seed(0))
    save_file({"embeddings.word_embeddings.weight": embeddings}, folder / "model.safetensors")
    return folder


TINY = {"hidden": 32, "heads": 2, "intermediate": 64, "warmup": 2}


def test_losses_reach_every_part(training_data, initial_model):
    """Isolated and joint steps, with and without the language loss, give gradients to queries, keys and embeddings."""
    rng = random.Random(0)
    packs = data.Packs(training_data)
    tokenizer = train.tokenizer_from(initial_model)
    for joint in (0.0, 1.0):
        recipe = train.Recipe(**TINY, joint_share=joint)
        model = train.new_model(recipe, initial_model, tokenizer)
        batch = train.Batches(tokenizer, 64).make(packs.draw(rng), rng)
        retrieval, language, first = train.losses(model, batch, recipe, rng, language=True)
        (retrieval + language).backward()
        assert 0 <= float(first) <= 1
        for layer in recipe.read_layers:
            attention = model.model.layers[layer].self_attn
            assert float(attention.q_proj.weight.grad.abs().sum()) > 0
            assert float(attention.k_proj.weight.grad.abs().sum()) > 0
        assert float(model.model.embed_tokens.weight.grad.abs().sum()) > 0


def test_training_runs_stops_and_resumes(training_data, initial_model, tmp_path):
    """A short run writes a model the scorer can use; a second call goes on from its checkpoint."""
    out = tmp_path / "out"
    recipe = train.Recipe(**TINY, minutes=10, max_steps=4, log_every=2, checkpoint_every=4)
    train.train(training_data, initial_model, out, recipe)
    steps = [json.loads(line)["step"] for line in (out / "curve.jsonl").read_text().splitlines()]
    assert steps == [2, 4]
    train.train(training_data, initial_model, out, train.Recipe(**{**recipe.__dict__, "max_steps": 6}))
    steps = [json.loads(line)["step"] for line in (out / "curve.jsonl").read_text().splitlines()]
    assert steps == [2, 4, 6]
    scorer = QRScorer.from_pretrained(out / "model", device="cpu")
    assert scorer.heads.heads[0][2] >= scorer.heads.heads[-1][2]
    assert len(scorer.rank("river", ["stone", "river"])) == 2
