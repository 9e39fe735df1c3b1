"""The embedded model: what ships, that it is useful, and that the script beside it trains."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, BertModel

from qr_core import Document, QRScorer
from qr_core.evaluation.examples import read_examples
from qr_core.inputs import documents_from_json_lines
from qr_core.mini import data, embedded_model, forward, losses, overlap, packs, select, token_teacher, train
from qr_core.mini import recipe as recipe_module
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
    scorer = QRScorer.from_pretrained(device="cpu", dtype="float32", layout="joint")
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
    sources = ("nqg", "squadshifts_new_wiki", "nq_oracle")
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


@pytest.fixture(scope="module")
def initial_model(tmp_path_factory):
    """A folder as all-MiniLM-L6-v2's, here tiny and random."""
    folder = tmp_path_factory.mktemp("init")
    tokenizer = AutoTokenizer.from_pretrained(embedded_model())
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(folder)
    tokenizer.add_special_tokens({"cls_token": "[CLS]", "sep_token": "[SEP]"})
    tokenizer.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")  # named as in the published file
    save_file({name.removeprefix("bert."): tensor for name, tensor in weights.items()}, folder / "model.safetensors")
    return folder


@pytest.fixture
def sources(training_data, initial_model, tmp_path):
    return train.Sources(training_data, initial_model, tmp_path / "cache")


def test_packs_are_well_formed(sources):
    rng = random.Random(3)
    for _ in range(40):
        pack = sources.packs.draw(rng)
        shape = (len(pack.queries), len(pack.passages))
        assert shape[0] >= 1
        assert 3 <= shape[1] <= 36
        assert len({passage.text for passage in pack.passages}) == shape[1]
        assert pack.targets.shape == pack.golds.shape == shape
        assert torch.allclose(pack.targets.sum(dim=1), torch.ones(shape[0]))


def test_held_out_text_is_not_trained_on(sources):
    rng = random.Random(4)
    held = {p.text for p in sources.collection.passages if data.held_out(p)}
    asked = {q.text for q in sources.collection.queries if q.asked and data.held_out(q)}
    assert held
    assert asked
    for _ in range(40):
        pack = sources.packs.draw(rng)
        assert held.isdisjoint(passage.text for passage in pack.passages)
        assert asked.isdisjoint(pack.queries)
    assert not asked.isdisjoint(query for _ in range(10) for query in sources.held_out.draw(rng).queries)


def test_the_same_files_give_the_same_queries(training_data):
    """In another process too: what is read does not hang on the order of sets."""
    script = "import sys; from qr_core.mini import data; from pathlib import Path; print(data.read(Path(sys.argv[1])))"
    runs = [
        subprocess.run(
            [sys.executable, "-c", script, str(training_data)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in "12"
    ]
    assert runs[0] == runs[1]


def test_the_teacher_and_bm25_have_equal_weight():
    cosine = torch.tensor([[2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
    words = torch.tensor([[0.0, 9.0, 0.0], [0.0, 0.0, 0.0]])
    found = packs.fused(cosine, words)
    assert found[0].argmax() == 1
    assert torch.allclose(found[1], packs.FUSION * cosine[1])  # no word in common: the teacher alone
    assert torch.allclose(found[0], packs.fused(cosine, 7 * words + 3)[0], atol=1e-5)  # BM25's scale is its own
    assert torch.allclose(packs.fused(cosine, cosine)[0], 2 * packs.FUSION * cosine[0], atol=1e-5)


def test_bm25_takes_part_in_the_targets(sources):
    plain = packs.Packs(
        sources.collection, (sources.packs.passage_vectors, sources.packs.query_vectors), sources.packs.near
    )
    pack, with_words = plain.draw(random.Random(3)), sources.packs.draw(random.Random(3))
    assert pack.queries == with_words.queries
    assert not torch.allclose(pack.targets, with_words.targets)
    assert torch.allclose(with_words.targets.sum(dim=1), torch.ones(len(pack.queries)))


def test_examples_for_detection_are_read_back(sources, tmp_path):
    examples = select.drawn(sources.held_out, 6, seed=1)
    assert len(examples) > 3
    assert all(one.problem() is None for one in examples)
    select.write_examples(examples, tmp_path / "examples.jsonl")
    found, problems = read_examples(tmp_path / "examples.jsonl")
    assert not problems
    told = [(one.id, one.query, [(d.title, d.text) for d in one.documents], one.gold) for one in examples]
    assert [(one.id, one.query, [(d.title, d.text) for d in one.documents], one.gold) for one in found] == told


def test_no_data_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"qa\.jsonl\.gz"):
        data.read(tmp_path)


TINY = {"hidden": 32, "heads": 2, "intermediate": 64, "warmup": 2, "layers": 3, "read_layers": (1,), "select_packs": 8}


def test_neighbours_leave_answers_out(sources):
    for near in sources.packs.near:
        assert any(near)
        for query, places in zip(sources.collection.queries, near, strict=True):
            assert set(places).isdisjoint(query.golds)
            assert all(sources.collection.passages[place].source == query.source for place in places)


@pytest.mark.parametrize("layout", ["joint", "independent"])
def test_training_reads_what_the_scorer_reads(layout):
    """The forward pass over several packs gives the masses that the scorer gives for each."""
    scorer = QRScorer.from_pretrained(device="cpu", dtype="float32", calibrate=False, layout=layout)
    model = AutoModelForCausalLM.from_pretrained(embedded_model(), dtype=torch.float32)
    recipe = train.Recipe(read_layers=tuple(scorer.heads.by_layer()), spread_share=0.0)
    make = losses.Batches(AutoTokenizer.from_pretrained(embedded_model()), recipe).make
    texts = ["The bridge has six arches.", "Rye bread at five."], ["Ships wait.", "The tide comes in at six or so."]
    queries = ["How many arches?", "bread"]
    made = []
    for some in texts:
        rows = torch.ones(2, 2), torch.ones(2, 2, dtype=torch.bool), torch.zeros(2, 4), torch.zeros(2, 4)
        passages = [data.Passage("", text, "", 0) for text in some]
        made.append(make(packs.Pack(passages, queries, *rows), random.Random(0), joint=layout == "joint").layout)
    with torch.no_grad():
        found = forward.read(model, made, recipe.read_layers).masses
    chosen = [h for place, layer in enumerate(recipe.read_layers) for h in scorer.heads.by_layer()[layer]]
    for some, masses in zip(texts, found, strict=True):
        for row, query in enumerate(queries):
            expected = scorer.token_masses(query, [Document(text) for text in some]).mass
            assert torch.allclose(masses[row][chosen], expected, atol=1e-5)


def test_passages_apart_do_not_see_each_other(sources, initial_model):
    recipe = train.Recipe(**TINY, spread_share=0.0)
    tokenizer = train.tokenizer_from(initial_model)
    model = train.new_model(recipe, torch.randn(len(tokenizer), 32), tokenizer)
    made = losses.Batches(tokenizer, recipe).make(sources.packs.draw(random.Random(1)), random.Random(1), joint=False)
    start, end = made.layout.passages[0]
    other = made.layout.ids.clone()
    other[start:end] = 2000
    with torch.no_grad():
        before, after = (
            forward.read(model, [replace(made.layout, ids=ids)], (1,)).states for ids in (made.layout.ids, other)
        )
    assert not torch.allclose(before[start:end], after[start:end])
    rest = slice(end, made.layout.late[0])
    assert torch.allclose(before[rest], after[rest])


def test_losses_reach_every_part(sources, initial_model):
    """Packs apart and joint give gradients to queries, keys and embeddings, and the teacher's distances to readouts."""
    rng = random.Random(0)
    teacher = token_teacher.TokenTeacher(initial_model)
    tokenizer = train.tokenizer_from(initial_model)
    for joint in (0.0, 1.0):
        recipe = train.Recipe(**TINY, joint_share=joint)
        model = train.new_model(recipe, torch.randn(len(tokenizer), 32), tokenizer)
        made = [losses.Batches(tokenizer, recipe).make(sources.packs.draw(rng), rng) for _ in range(2)]
        readouts = losses.Readouts(32)
        found = losses.losses(model, readouts, made, recipe, teacher, language=True)
        found.total(recipe).backward()
        assert 0 <= found.record()["first"] <= 1
        assert all(float(layer.weight.grad.abs().sum()) > 0 for layer in (readouts.tokens, readouts.ends))
        attention = model.model.layers[1].self_attn
        assert float(attention.q_proj.weight.grad.abs().sum()) > 0
        assert float(attention.k_proj.weight.grad.abs().sum()) > 0
        assert float(model.model.embed_tokens.weight.grad.abs().sum()) > 0


def test_single_states_are_those_of_the_text_read_whole(initial_model):
    """Whatever else stands in the batch, each token has the state that the teacher gives it in its own text."""
    teacher = token_teacher.TokenTeacher(initial_model)
    texts = [torch.arange(1000, 1000 + length) for length in (3, 40, 1, 38)]
    found = teacher.states(texts)
    assert found.shape == (82, 32)
    for text, own in zip(texts, found.split([len(text) for text in texts]), strict=True):
        ids = torch.cat([torch.tensor([teacher.start]), text, torch.tensor([teacher.end])])[None]
        with torch.no_grad():
            expected = teacher.model(input_ids=ids).last_hidden_state[0, 1:-1].float()
        assert torch.allclose(own, expected, atol=0.05)
    assert teacher.words().shape[0] == teacher.model.config.vocab_size


def test_readouts_start_nearer_to_the_teacher_than_nothing(initial_model):
    teacher = token_teacher.TokenTeacher(initial_model)
    texts = [torch.randint(1000, 1100, (30,)) for _ in range(40)]
    table = teacher.words()
    readouts = losses.Readouts(32)
    readouts.fit(table, teacher, texts)
    goal = teacher.states(texts)
    goal = goal / goal.pow(2).mean().sqrt()
    words = torch.nn.functional.rms_norm(table[torch.cat(texts)], (32,), eps=1e-6)
    assert float((readouts.tokens(words).detach() - goal).pow(2).mean()) < 0.7 * float(goal.pow(2).mean())


def test_the_model_is_the_mean_of_the_last_checkpoints(initial_model, tmp_path):
    recipe = train.Recipe(**TINY, max_steps=100, averaged_from=0.5, sharpness=0.5)
    run = train.Run(initial_model, tmp_path, recipe)
    read, other = (run.model.model.layers[layer].self_attn.q_proj.weight for layer in (1, 0))
    for step, value in ((20, 9.0), (60, 1.0), (80, 3.0), (80, 7.0)):  # the first is too early, the last came twice
        run.step = step
        with torch.no_grad():
            read.fill_(value)
            other.fill_(value)
        run.save_checkpoint()
    again = train.Run(initial_model, tmp_path, recipe)
    again.save_model()
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    assert model.model.layers[0].self_attn.q_proj.weight.detach().unique().item() == 2.0
    assert model.model.layers[1].self_attn.q_proj.weight.detach().unique().item() == 1.0


def test_frozen_words_stay(training_data, initial_model, tmp_path):
    recipe = train.Recipe(**TINY, minutes=10, max_steps=2, log_every=2, checkpoint_every=4)
    run = train.Run(initial_model, tmp_path / "run", recipe)
    before = run.model.model.embed_tokens.weight.detach().clone()
    sources = train.Sources(training_data, initial_model, tmp_path / "run")
    batches = losses.Batches(run.tokenizer, recipe)
    run.take_step([batches.make(sources.packs.draw(random.Random(0)), random.Random(0))])
    assert torch.equal(run.model.model.embed_tokens.weight, before)


def test_added_layers_change_nothing_at_first():
    before = AutoModelForCausalLM.from_pretrained(embedded_model(), dtype=torch.float32)
    layers = before.config.num_hidden_layers
    after = recipe_module.grown(embedded_model(), train.Recipe(layers=layers + 1, read_layers=(layers - 1,)))
    ids = torch.arange(2000, 2040)[None]
    with torch.no_grad():
        assert torch.allclose(before(ids).logits, after(ids).logits, atol=1e-5)
    assert after.config.num_hidden_layers == layers + 1


def test_training_runs_stops_and_resumes(training_data, initial_model, tmp_path):
    """A short run writes a model the scorer can use; a second call goes on from its checkpoint."""
    out = tmp_path / "out"
    recipe = train.Recipe(**TINY, minutes=10, max_steps=4, log_every=2, checkpoint_every=4)
    train.train(training_data, initial_model, out, recipe)
    steps = [json.loads(line)["step"] for line in (out / "curve.jsonl").read_text().splitlines()]
    assert steps == [2, 4]
    train.train(training_data, initial_model, out, replace(recipe, max_steps=6))
    steps = [json.loads(line)["step"] for line in (out / "curve.jsonl").read_text().splitlines()]
    assert steps == [2, 4, 6]
    scorer = QRScorer.from_pretrained(out / "model", device="cpu")
    assert scorer.heads.heads[0][2] >= scorer.heads.heads[-1][2]
    assert len(scorer.rank("river", ["stone", "river"])) == 2
    assert (
        train.Run(initial_model, tmp_path / "next", replace(recipe, layers=4, read_layers=(2,)), out / "model").step
        == 0
    )


def test_a_run_goes_on_from_another(initial_model, tmp_path):
    """From its mean, in full precision and before it was sharpened, with its readouts."""
    recipe = train.Recipe(**TINY, max_steps=2, averaged_from=0.5)
    first = train.Run(initial_model, tmp_path / "first", recipe)
    first.step = 2
    first.save_checkpoint()
    weights = first.model.model.layers[1].self_attn.q_proj.weight.detach().clone()
    first.save_model()
    second = train.Run(initial_model, tmp_path / "second", replace(recipe, seed=1), tmp_path / "first")
    assert second.step == 0
    assert torch.equal(second.model.model.layers[1].self_attn.q_proj.weight, weights)
    assert torch.equal(second.readouts.ends.weight, first.readouts.ends.weight)


def test_passages_apart_share_their_positions(sources, initial_model):
    recipe = train.Recipe(**TINY, spread_share=0.0)
    batches = losses.Batches(train.tokenizer_from(initial_model), recipe)
    pack = sources.packs.draw(random.Random(1))
    together, apart = (batches.make(pack, random.Random(1), joint=joint).layout for joint in (True, False))
    assert torch.equal(together.positions[: together.late[1]], torch.arange(together.late[1]))
    opening = apart.passages[0][0]
    assert {int(apart.positions[start]) for start, _ in apart.passages} == {opening}
    longest = max(end - start for start, end in apart.passages)
    assert int(apart.positions[apart.late[0]]) == opening + longest
    for (start, end), (first, last) in zip(apart.passages, together.passages, strict=True):  # without their numbers
        assert end - start < last - first or end - start == recipe.passage_tokens


PLANTED = "the harbour master keeps a brass telescope in the third drawer of his oak desk by the window"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (PLANTED, True),
        (f"Once, they say: {PLANTED.upper()}!", True),
        (" ".join(PLANTED.split()[:13]), True),
        (" ".join(PLANTED.split()[:12]) + " and more words that stand nowhere else", False),
        ("a short text", True),
        ("a short text and more", False),
        ("", False),
    ],
)
def test_overlap_is_found(text, found):
    assert overlap.Evaluation([PLANTED + " and so on", "A short text."]).holds(text) is found


def test_planted_overlap_fails_the_check_and_is_left_out_of_training(training_data, initial_model, tmp_path):
    collection = data.read(training_data)
    evaluation = tmp_path / "evaluation" / "set"
    evaluation.mkdir(parents=True)
    write(evaluation / "corpus.jsonl.gz", [{"_id": "d1", "text": "nothing of the kind stands here"}])
    command = [sys.executable, "-m", "qr_core.mini.overlap", "--data", str(training_data), "--evaluation"]
    clean = subprocess.run([*command, str(evaluation)], capture_output=True, text=True, check=False)
    assert (clean.returncode, clean.stderr) == (0, "")
    planted = next(i for i, passage in enumerate(collection.passages) if not data.held_out(passage))
    words = collection.passages[planted].text.split()
    (evaluation / "queries.json").write_text(json.dumps([{"question": "So: " + " ".join(words[5:20])}]))
    dirty = subprocess.run([*command, str(evaluation)], capture_output=True, text=True, check=False)
    assert dirty.returncode == 1
    assert " ".join(words)[:60] in dirty.stdout
    sources = train.Sources(training_data, initial_model, tmp_path / "cache", [evaluation])
    assert planted not in sources.packs.allowed
    assert all(planted not in sources.packs.queries[i].golds for kind in sources.packs.seeds.values() for i in kind)
