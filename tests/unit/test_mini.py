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
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, BertModel

from qr_core import Document, QRScorer
from qr_core.evaluation.examples import read_examples
from qr_core.inputs import documents_from_json_lines
from qr_core.mini import data, embedded_model, forward, losses, overlap, packs, select, token_teacher, train
from qr_core.mini import recipe as recipe_module
from qr_core.mini.batches import COMMON_IDS, Batches, Steps
from qr_core.templates import NULL_QUERY
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
    """A few lines in each of the four formats."""
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
    meetings = folder / "qmsum_train"
    meetings.mkdir()
    paragraphs = lambda: [{"idx": f"p{i}", "paragraph_text": text() * (1 + 4 * (i == 2))} for i in range(8)]  # noqa: E731
    write(meetings / "meetings.json.gz", [[{"meeting": f"m{i}", "paragraphs": paragraphs()} for i in range(12)]])
    answers = (["p1"], ["p4", "p2"], ["p0", "p3", "p5", "p6", "p7"])
    write(
        meetings / "queries.json.gz",
        [[{"meeting": f"m{i}", "question": sentence(), "gt_docs": docs} for i in range(12) for docs in answers]],
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


def batches_for(init, recipe):
    tokenizer = train.tokenizer_from(init)
    return Batches(tokenizer, tuple(tokenizer.convert_tokens_to_ids(["[CLS]", "[SEP]"])), recipe)


def texts_of(batch):
    """The tokens of a batch's texts, as they stand in the packs."""
    return batch.layout.ids.flatten()[batch.tokens].split(torch.bincount(batch.text_of).tolist())


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
        assert pack.lexical.shape == pack.golds.shape == shape
        assert pack.lexical.dtype == torch.float32
        assert pack.golds.any(dim=1)[pack.label_weights > 0].all()


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
    present = torch.ones(2, 3, dtype=torch.bool)
    found = losses.fused(cosine, words, present)
    assert found[0].argmax() == 1
    assert torch.allclose(found[1], losses.FUSION * cosine[1])  # no word in common: the teacher alone
    scaled = losses.fused(cosine, 7 * words + 3, present)
    assert torch.allclose(found[0], scaled[0], atol=1e-5)  # BM25's scale is its own
    assert torch.allclose(losses.fused(cosine, cosine, present)[0], 2 * losses.FUSION * cosine[0], atol=1e-5)
    wider = [torch.cat([rows, torch.full((2, 1), 50.0)], dim=1) for rows in (cosine, words)]
    absent = torch.cat([present, torch.zeros(2, 1, dtype=torch.bool)], dim=1)
    assert torch.allclose(losses.fused(*wider, absent)[:, :3], found, atol=1e-5)


def test_targets_are_shares_of_answers_teacher_and_bm25(sources, initial_model):
    batches = batches_for(initial_model, train.Recipe(**TINY))
    rng = random.Random(3)
    batch = batches.make([sources.packs.draw(rng) for _ in range(3)], rng)
    _, vectors = token_teacher.TokenTeacher(initial_model).states(batch.texts)
    shares = losses.targets(batch, vectors, 0.05)
    assert torch.allclose(shares.sum(dim=2), torch.ones(shares.shape[:2]))
    assert not shares[~batch.passages[:, None].expand_as(shares)].any()
    weights = batch.label_weights[..., None] / batch.answers.sum(dim=2, keepdim=True).clamp_min(1)
    assert (shares >= weights * batch.answers - 1e-6).all()
    without_words = losses.targets(replace(batch, lexical=torch.zeros_like(batch.lexical)), vectors, 0.05)
    turned = losses.targets(batch, vectors.flip(0), 0.05)
    labels = losses.targets(replace(batch, label_weights=torch.ones_like(batch.label_weights)), vectors, 0.05)
    for other in (without_words, turned, labels):
        assert not torch.allclose(shares[batch.queries], other[batch.queries], atol=1e-3)
    known = batch.answers.any(dim=2)
    assert torch.equal(labels[known] > 0, batch.answers[known])


def test_losses_are_those_of_loops_over_packs_and_texts(initial_model):
    """Each figure again, text by text: what stands where in the tensors of a batch is right."""
    recipe = train.Recipe(**TINY, renamed_share=0.0, spread_share=0.0, language_tokens=10_000)
    batches = batches_for(initial_model, recipe)
    teacher = token_teacher.TokenTeacher(initial_model)
    torch.manual_seed(1)
    model = train.new_model(recipe, torch.randn(len(batches.tokenizer), 32), batches.tokenizer)
    model.model.layers[1].self_attn.q_proj.weight.data.mul_(200)  # so that it matters what is looked at
    readouts = losses.Readouts(32, 32)
    texts = ["The tide comes in.", "Bread is baked at five.", "A storm took the bridge."], ["Ships wait.", "The lamp"]
    queries = ["when is bread baked", "the lamp of the ship"], ["who waits for the tide, and where?"]
    made = [
        packs.Pack(
            [data.Passage("", text, "", 0) for text in some],
            list(asked),
            torch.tensor([[place == row for place in range(len(some))] for row in range(len(asked))]),
            torch.tensor([0.0, 3.0, 1.0, 7.0, 0.0, 2.0][: len(asked) * len(some)]).view(len(asked), -1),
            torch.tensor([0.5, 0.3][: len(asked)]),
        )
        for some, asked in zip(texts, queries, strict=True)
    ]
    batch = batches.make(made, random.Random(0), joint=True)

    @torch.no_grad()
    def taught(text):
        ids = torch.tensor([[teacher.start, *batches.encode(text), teacher.end]])
        states = teacher.model(input_ids=ids).last_hidden_state[0].float()
        return states[1:-1], torch.nn.functional.normalize(states.mean(dim=0), dim=0)

    with torch.no_grad():
        read = forward.read(model, batch.layout, recipe.read_layers, to_the_end=True)
        states, own = teacher.states(batch.texts)[0], read.states.flatten(0, 1)[batch.tokens]
        for layer in (readouts.tokens, readouts.ends):  # and what is compared
            weight, bias = token_teacher.fitted(own, states / states.pow(2).mean().sqrt(), ridge=1.0)
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
        found = losses.losses(model, readouts, batch, recipe, teacher, language=True)
    shares, null, goals, learnt, means, ends, wanted, said = [], [], [], [], [], [], [], []
    for item, pack in enumerate(made):
        parts, ids = batch.layout.parts[item], batch.layout.ids[item]
        vectors = torch.stack([taught(passage.text)[1] for passage in pack.passages])
        mass = read.masses[item].mean(dim=0)
        mass = torch.stack([mass[:, parts == 1 + place].sum(dim=1) for place in range(len(pack.passages))], dim=1)
        share = mass / mass.sum(dim=1, keepdim=True)
        null.append(-torch.log(share[0]).mean())
        for row, query in enumerate(pack.queries):
            cosines, words = vectors @ taught(query)[1] / recipe.temperature, pack.lexical[row]
            mixed = cosines + cosines.std() * (words - words.mean()) / words.std()
            goal = torch.softmax(losses.FUSION * mixed, dim=0) * (1 - pack.label_weights[row])
            goal = goal + pack.label_weights[row] * pack.golds[row] / pack.golds[row].sum()
            shares.append(-(goal * torch.log(share[1 + row])).sum())
        numbered = [len(batches.encode(f"[{place}]")) for place in range(1, 1 + len(pack.passages))]
        own = [
            (1 + place, mark, passage.text)
            for place, (mark, passage) in enumerate(zip(numbered, pack.passages, strict=True))
        ]
        own += [(forward.LATE + 2 + place, 0, query) for place, query in enumerate(pack.queries)]
        for part, mark, text in own:
            states = read.states[item][parts == part][mark:]
            assert ids[parts == part][mark:].tolist() == batches.encode(text)
            goals.append(taught(text)[0])
            learnt.append(states)
            wanted.append(taught(text)[1])
            means.append(states.mean(dim=0))
            ends.append(states[-1])
        for place in range(len(ids) - 1):
            if parts[place] == parts[place + 1] and 0 <= parts[place] < forward.LATE:
                logits = model.lm_head(read.last[item, place])
                said.append(torch.nn.functional.cross_entropy(logits, ids[place + 1]))
    goal = torch.cat(goals)
    with torch.no_grad():
        away = readouts.tokens(torch.cat(learnt)) - goal / goal.pow(2).mean().sqrt()
        by_mean, by_end = readouts.tokens(torch.stack(means)), readouts.ends(torch.stack(ends))
    cosine = torch.nn.functional.cosine_similarity
    expected = {
        "retrieval": torch.stack(shares).mean(),
        "null": torch.stack(null).mean(),
        "tokens": away.pow(2).mean(),
        "vectors": 1 - cosine(by_mean, torch.stack(wanted)).mean(),
        "ends": 1 - cosine(by_end, torch.stack(wanted)).mean(),
        "language": torch.stack(said).mean(),
    }
    for name, value in expected.items():
        assert float(getattr(found, name)) == pytest.approx(float(value.detach()), rel=0.005), name


def test_meetings_are_read(training_data):
    found = data.read(training_data)
    meetings, asked = (
        json.loads(gzip.decompress((training_data / "qmsum_train" / f"{name}.json.gz").read_bytes()))
        for name in ("meetings", "queries")
    )
    said = {(row["meeting"], p["idx"]): p["paragraph_text"] for row in meetings for p in row["paragraphs"]}
    queries = [query for query in found.queries if query.source == "qmsum" and query.asked]
    for query, row in zip(queries, asked, strict=True):
        assert query.text == row["question"]
        assert {found.passages[place].group for place in query.golds} <= {query.group}
        known = row["gt_docs"] if len(row["gt_docs"]) < 5 else []  # more are left to the teacher
        expected = " ".join(said[row["meeting"], key] for key in known)
        assert " ".join(found.passages[place].text for place in query.golds) == expected
    assert {len(query.golds) for query in queries} == {0, 1, 3}  # a long paragraph is two passages
    assert len({query.group for query in queries}) == len(meetings)


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


forks = pytest.mark.filterwarnings(
    "ignore:.*fork:DeprecationWarning",  # of a process with several threads
    "ignore:This DataLoader will create:UserWarning",  # more workers than this machine has cores
)
TINY = {"hidden": 32, "heads": 2, "intermediate": 64, "warmup": 2, "layers": 3, "read_layers": (1,), "select_packs": 8}


def test_neighbours_leave_answers_out(sources):
    for near in sources.packs.near:
        assert any(near)
        for query, places in zip(sources.collection.queries, near, strict=True):
            assert set(places).isdisjoint(query.golds)
            assert all(sources.collection.passages[place].source == query.source for place in places)


@pytest.mark.parametrize("layout", ["joint", "independent"])
def test_training_reads_what_the_scorer_reads(layout):
    """The forward pass over packs of different sizes, side by side, gives the masses that the scorer gives for each."""
    scorer = QRScorer.from_pretrained(device="cpu", dtype="float32", calibrate=False, layout=layout)
    model = AutoModelForCausalLM.from_pretrained(embedded_model(), dtype=torch.float32)
    recipe = train.Recipe(read_layers=tuple(scorer.heads.by_layer()), spread_share=0.0, renamed_share=0.0)
    cases = [
        (["The bridge has six arches.", "Rye bread at five."], ["How many arches?", "bread"]),
        (["Ships wait.", "The tide comes in at six or so.", "Rain is expected in the north."], ["when is the tide"]),
    ]
    made = []
    for texts, queries in cases:
        golds = torch.ones(len(queries), len(texts), dtype=torch.bool)
        passages = [data.Passage("", text, "", 0) for text in texts]
        made.append(packs.Pack(passages, queries, golds, golds.float(), torch.zeros(len(queries))))
    batch = batches_for(embedded_model(), recipe).make(made, random.Random(0), joint=layout == "joint")
    with torch.no_grad():
        found = forward.read(model, batch.layout, recipe.read_layers).masses
    assert found.shape[2:] == (3, batch.layout.ids.shape[1])
    chosen = [
        place * model.config.num_attention_heads + head
        for place, layer in enumerate(recipe.read_layers)
        for head in scorer.heads.by_layer()[layer]
    ]
    for masses, (texts, queries) in zip(found, cases, strict=True):
        for row, query in enumerate([NULL_QUERY, *queries]):
            expected = scorer.token_masses(query, [Document(text) for text in texts]).mass
            assert torch.allclose(masses[chosen, row, : expected.shape[1]], expected, atol=1e-5)
        assert not masses[:, :, expected.shape[1] :].any()
        assert not masses[:, 1 + len(queries) :].any()


def test_padding_and_neighbours_change_nothing(sources, initial_model):
    """A pack alone has the masses and the targets that it has beside others; losses are means over all packs' rows."""
    recipe = train.Recipe(**TINY, spread_share=0.0, renamed_share=0.0, language_tokens=10**6)
    batches = batches_for(initial_model, recipe)
    torch.manual_seed(0)
    model = train.new_model(recipe, torch.randn(len(batches.tokenizer), 32), batches.tokenizer)
    readouts, teacher = losses.Readouts(32, 32), token_teacher.TokenTeacher(initial_model)
    teacher.model.float()  # so that equal means equal
    rng = random.Random(2)
    some = [sources.packs.draw(rng) for _ in range(3)]
    joint = torch.tensor([True, False, True])

    def measured(drawn, joint):
        batch = batches.make(drawn, random.Random(0), joint=False, titled=True)
        batch = replace(batch, layout=replace(batch.layout, joint=joint))
        shares = losses.targets(batch, teacher.states(batch.texts)[1], recipe.temperature)
        masses = forward.read(model, batch.layout, (1,)).masses
        return batch, masses, shares, losses.losses(model, readouts, batch, recipe, teacher, language=True)

    with torch.no_grad():
        together, masses, shares, found = measured(some, joint)
        alone = [measured([pack], joint[row : row + 1]) for row, pack in enumerate(some)]
    assert len({batch.layout.ids.shape for batch, *_ in alone}) == 3
    assert len({batch.answers.shape for batch, *_ in alone}) == 3
    rows = {"null": [1, 1, 1], "retrieval": [], "vectors": [], "ends": [], "language": []}
    for place, (batch, own, targets, _) in enumerate(alone):
        _, queries, passages = batch.answers.shape
        layout = batch.layout
        prefix = int(((layout.parts >= 0) & (layout.parts < forward.LATE)).sum())
        assert torch.equal(layout.ids[0][layout.parts[0] >= 0], together.layout.ids[place][: (layout.parts >= 0).sum()])
        assert torch.allclose(masses[place, :, : queries + 1, :prefix], own[0, ..., :prefix], atol=1e-5)
        assert not masses[place, :, :, prefix:].any()
        assert torch.allclose(shares[place, :queries, :passages], targets[0], atol=1e-4)
        rows["retrieval"].append(queries)
        rows["vectors"].append(queries + passages)
        rows["ends"].append(queries + passages)
        rows["language"].append(prefix - passages - 1)
    for name, counts in rows.items():
        expected = sum(count * getattr(one, name) for count, (*_, one) in zip(counts, alone, strict=True)) / sum(counts)
        assert torch.allclose(getattr(found, name), expected, atol=1e-4), name
    assert torch.equal(found.first, torch.cat([one.first for *_, one in alone]))


def test_passages_apart_do_not_see_each_other(sources, initial_model):
    recipe = train.Recipe(**TINY, spread_share=0.0)
    batches = batches_for(initial_model, recipe)
    model = train.new_model(recipe, torch.randn(len(batches.tokenizer), 32), batches.tokenizer)
    made = [
        batches.make([sources.packs.draw(random.Random(1))], random.Random(1), joint=joint).layout
        for joint in (True, False)
    ]
    for layout in made:
        first = layout.parts == 1
        rest = (layout.parts > 1) & (layout.parts < forward.LATE)
        with torch.no_grad():
            before, after = (
                forward.read(model, replace(layout, ids=ids), (1,)).states
                for ids in (layout.ids, layout.ids.where(~first, 2000))
            )
        assert not torch.allclose(before[first], after[first])
        assert torch.allclose(before[rest], after[rest]) is not bool(layout.joint)


def test_rare_words_are_renamed_alike(initial_model):
    """The same word gets the same new one in passages and queries of a pack; common words stay."""
    batches = batches_for(initial_model, train.Recipe(**TINY, renamed_share=1.0))
    words = ["bridge", "quinoa", "photosynthesis", "Zoologists", "window"]
    assert [batches.encode(word)[0] > COMMON_IDS for word in ("the", "of")] == [False, False]
    passages = [data.Passage("", f"the {word} of the", "", 0) for word in words]
    golds = torch.eye(5, dtype=torch.bool)
    pack = packs.Pack(passages, words, golds, golds.float(), torch.zeros(5))
    outcomes = {word: set() for word in words}
    for seed in range(20):
        batch = batches.make([pack, pack], random.Random(seed))
        texts = [text.tolist() for text in texts_of(batch)]
        read = torch.cat([ids.flatten()[own] for ids, own in zip(batch.texts.ids, batch.texts.inside, strict=True)])
        assert torch.equal(read[batch.texts.tokens], batch.layout.ids.flatten()[batch.tokens])
        assert torch.equal(batch.tokens[torch.bincount(batch.text_of).cumsum(0) - 1], batch.ends)
        for own in (texts[:10], texts[10:]):
            for word, passage, query in zip(words, own[:5], own[5:], strict=True):
                assert passage == [*batches.encode("the"), *query, *batches.encode("of the")]
                outcomes[word].add(tuple(query))
    for word, found in outcomes.items():
        plain = batches.encode(word)
        assert tuple(plain) in found
        assert (len(found) > 4) is (len(plain) > 1 or plain[0] > COMMON_IDS)
    assert min(len(found) for found in outcomes.values()) == 1


@forks
def test_each_worker_draws_its_own_packs(sources, initial_model):
    """And draws the same ones again, unless the seed or the step where it starts is another."""
    batches = batches_for(initial_model, train.Recipe(**TINY))

    def drawn(workers, step=0, **other):
        steps = Steps(sources.packs, batches, train.Recipe(**TINY, **other), step)
        loaded = iter(DataLoader(steps, batch_size=None, num_workers=workers))
        return [next(loaded).layout.ids.tolist() for _ in range(4)]

    both = drawn(2)
    assert len({str(ids) for ids in both}) == 4
    assert both == drawn(2)
    single = drawn(0)
    assert single[:2] == both[::2]
    for other in (drawn(0, step=4), drawn(0, seed=1)):
        assert all(ids not in single for ids in other)


def test_a_batch_moves_whole(sources, initial_model):
    batch = batches_for(initial_model, train.Recipe(**TINY)).make(
        [sources.packs.draw(random.Random(0))], random.Random(0)
    )
    moved = forward.moved(batch, "meta")
    assert {moved.answers.device.type, moved.layout.parts.device.type, moved.texts.ids[0].device.type} == {"meta"}
    assert moved.texts.inside[0].shape == batch.texts.inside[0].shape


def test_losses_reach_every_part(sources, initial_model):
    """Packs apart and joint give gradients to queries, keys and embeddings, and the teacher's distances to readouts."""
    rng = random.Random(0)
    teacher = token_teacher.TokenTeacher(initial_model)
    for joint in (0.0, 1.0):
        recipe = train.Recipe(**TINY, joint_share=joint)
        batches = batches_for(initial_model, recipe)
        model = train.new_model(recipe, torch.randn(len(batches.tokenizer), 32), batches.tokenizer)
        made = batches.make([sources.packs.draw(rng) for _ in range(2)], rng)
        readouts = losses.Readouts(32, 32)
        found = losses.losses(model, readouts, made, recipe, teacher, language=True)
        found.total(recipe).backward()
        assert 0 <= found.record()["first"] <= 1
        assert all(float(layer.weight.grad.abs().sum()) > 0 for layer in (readouts.tokens, readouts.ends))
        attention = model.model.layers[1].self_attn
        assert float(attention.q_proj.weight.grad.abs().sum()) > 0
        assert float(attention.k_proj.weight.grad.abs().sum()) > 0
        assert float(model.model.embed_tokens.weight.grad.abs().sum()) > 0


def test_single_states_are_those_of_the_text_read_whole(initial_model):
    """Whatever else stands in the batch, a token's state is the one in its own text, and a text's vector their mean."""
    teacher = token_teacher.TokenTeacher(initial_model)
    texts = [list(range(1000, 1000 + length)) for length in (3, 40, 1, 38)]
    found, vectors = teacher.states(teacher.texts(texts))
    assert found.shape == (82, 32)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(4))
    for text, own, vector in zip(texts, found.split([len(text) for text in texts]), vectors, strict=True):
        with torch.no_grad():
            ids = torch.tensor([[teacher.start, *text, teacher.end]])
            expected = teacher.model(input_ids=ids).last_hidden_state[0].float()
        assert torch.allclose(own, expected[1:-1], atol=0.05)
        assert torch.allclose(vector, torch.nn.functional.normalize(expected.mean(dim=0), dim=0), atol=0.01)
    assert teacher.words().shape[0] == teacher.model.config.vocab_size


def test_readouts_start_nearer_to_the_teacher_than_nothing(initial_model):
    teacher = token_teacher.TokenTeacher(initial_model)
    words = torch.randint(1000, 1100, (40, 30))
    table = teacher.words()
    readouts = losses.Readouts(32, 32)
    goal, _ = teacher.states(teacher.texts(words.tolist()))
    readouts.fit(table, goal, words.flatten())
    goal = goal / goal.pow(2).mean().sqrt()
    inputs = torch.nn.functional.rms_norm(table[words.flatten()], (32,), eps=1e-6)
    assert float((readouts.tokens(inputs).detach() - goal).pow(2).mean()) < 0.7 * float(goal.pow(2).mean())


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
    run.take_step(batches_for(initial_model, recipe).make([sources.packs.draw(random.Random(0))], random.Random(0)))
    assert torch.equal(run.model.model.embed_tokens.weight, before)


def test_added_layers_change_nothing_at_first():
    before = AutoModelForCausalLM.from_pretrained(embedded_model(), dtype=torch.float32)
    layers = before.config.num_hidden_layers
    after = recipe_module.grown(embedded_model(), train.Recipe(layers=layers + 1, read_layers=(layers - 1,)))
    ids = torch.arange(2000, 2040)[None]
    with torch.no_grad():
        assert torch.allclose(before(ids).logits, after(ids).logits, atol=1e-5)
    assert after.config.num_hidden_layers == layers + 1


@forks
def test_training_runs_stops_and_resumes(training_data, initial_model, tmp_path):
    """A short run writes a model the scorer can use; a second call, with a worker, goes on from its checkpoint."""
    out = tmp_path / "out"
    recipe = train.Recipe(**TINY, minutes=10, max_steps=4, log_every=2, checkpoint_every=4)
    train.train(training_data, initial_model, out, recipe)
    steps = [json.loads(line)["step"] for line in (out / "curve.jsonl").read_text().splitlines()]
    assert steps == [2, 4]
    train.train(training_data, initial_model, out, replace(recipe, max_steps=6), workers=1)
    steps = [json.loads(line)["step"] for line in (out / "curve.jsonl").read_text().splitlines()]
    assert steps == [2, 4, 6]
    scorer = QRScorer.from_pretrained(out / "model", device="cpu")
    assert scorer.heads.heads[0][2] >= scorer.heads.heads[-1][2]
    assert len(scorer.rank("river", ["stone", "river"])) == 2
    assert (
        train.Run(initial_model, tmp_path / "next", replace(recipe, layers=4, read_layers=(2,)), out / "model").step
        == 0
    )


def test_a_model_may_be_wider_than_its_teacher(training_data, initial_model, tmp_path):
    """The words keep their angles, and the readouts lead from its width to the teacher's."""
    wide = train.Recipe(**TINY | {"hidden": 64, "heads": 4}, minutes=10, max_steps=2, log_every=2)
    run = train.Run(initial_model, tmp_path / "run", wide)
    table, words = run.model.model.embed_tokens.weight.detach(), run.teacher.words()
    words = words - words.mean(dim=0)
    assert table.shape == (len(words), 64)
    angles = [torch.nn.functional.normalize(rows[1000:1010], dim=1) for rows in (table, words)]
    assert torch.allclose(*(rows @ rows.T for rows in angles), atol=1e-4)
    train.train(training_data, initial_model, tmp_path / "run", wide)
    assert QRScorer.from_pretrained(tmp_path / "run" / "model", device="cpu").rank("river", ["stone", "river"])
    with pytest.raises(ValueError, match="hidden 16 is less than the 32"):
        train.Run(initial_model, tmp_path / "narrow", replace(wide, hidden=16))


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
    recipe = train.Recipe(**TINY, spread_share=0.0, renamed_share=0.0)
    batches = batches_for(initial_model, recipe)
    pack = sources.packs.draw(random.Random(1))
    made = [batches.make([pack], random.Random(1), joint=joint, titled=True).layout for joint in (True, False)]

    def spans(layout):
        """First position and length of each part."""
        numbers = [number for number in layout.parts.unique().tolist() if number != forward.PADDING]
        own = {number: layout.positions[layout.parts == number] for number in numbers}
        assert all(torch.equal(places, places[0] + torch.arange(len(places))) for places in own.values())
        return {number: (int(places[0]), len(places)) for number, places in own.items()}

    together, apart = (spans(layout) for layout in made)
    prefix = made[0].positions[(made[0].parts >= 0) & (made[0].parts <= forward.LATE)]
    assert torch.equal(prefix, torch.arange(len(prefix)))
    numbers = range(1, len(pack.passages) + 1)
    opening = apart[forward.INTRODUCTION][1]
    assert {apart[number][0] for number in numbers} == {opening}
    assert apart[forward.LATE][0] == opening + max(apart[number][1] for number in numbers)
    for found in (together, apart):
        assert {found[number][0] for number in found if number > forward.LATE} == {sum(found[forward.LATE])}
        assert len(found) == 1 + len(pack.passages) + 1 + 1 + len(pack.queries)
    for number in numbers:  # without their numbers
        assert apart[number][1] < together[number][1] or apart[number][1] == recipe.passage_tokens


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
    asked = next(i for i, query in enumerate(collection.queries) if query.asked and not data.held_out(query))
    questions = ["So: " + " ".join(words[5:20]), collection.queries[asked].text]
    (evaluation / "queries.json").write_text(json.dumps([{"question": text} for text in questions]))
    dirty = subprocess.run([*command, str(evaluation)], capture_output=True, text=True, check=False)
    assert dirty.returncode == 1
    assert " ".join(words)[:60] in dirty.stdout
    sources = train.Sources(training_data, initial_model, tmp_path / "cache", [evaluation])
    assert planted not in sources.packs.allowed
    seeds = {i for kind in sources.packs.seeds.values() for i in kind}
    assert seeds
    assert all(planted not in sources.packs.queries[i].golds for i in seeds)
    assert asked not in seeds
