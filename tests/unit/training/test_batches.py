"""Packs as tensors: what the forward pass reads from them is what the scorer reads."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace

import pytest
import torch
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM

from qr_core import Document, QRScorer
from qr_core.mini import embedded_model
from qr_core.prompts.templates import NULL_QUERY
from qr_core.training import data, forward, losses, packs, token_teacher, train
from qr_core.training.batches import COMMON_IDS, Steps
from tests.unit.training.tiny import TINY, batches_for, forks, texts_of


@pytest.mark.parametrize("window", [512, 12])
@pytest.mark.parametrize("layout", ["joint", "independent"])
def test_training_reads_what_the_scorer_reads(layout, window, tmp_path):
    """The forward pass over packs of different sizes, side by side, gives the masses that the scorer gives for each.

    Also where the window of the layers before the read one ends inside a passage.
    """
    model = AutoModelForCausalLM.from_pretrained(embedded_model(), dtype=torch.float32, sliding_window=window)
    folder = shutil.copytree(embedded_model(), tmp_path / "model")
    model.config.save_pretrained(folder)
    scorer = QRScorer.from_pretrained(folder, device="cpu", dtype="float32", calibrate=False, layout=layout)
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
