"""The forward pass over packs computes what the scorer computes."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from qr_core import Document, QRScorer
from qr_core.mini import embedded_model
from qr_core.prompts.templates import NULL_QUERY
from qr_core.training import data, forward, losses, packs, token_teacher, train
from tests.unit.training.tiny import TINY, batches_for


@pytest.mark.parametrize("window", [512, 12])
@pytest.mark.parametrize("layout", ["joint", "independent"])
def test_training_reads_what_the_scorer_reads(layout, window, tmp_path):
    """The forward pass over packs of different sizes, side by side, gives the masses that the scorer gives for each.

    Also where the window of the layers before the read one ends inside a passage.
    """
    model = AutoModelForCausalLM.from_pretrained(
        embedded_model("embedded-fast"), dtype=torch.float32, sliding_window=window
    )
    folder = shutil.copytree(embedded_model("embedded-fast"), tmp_path / "model")
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
    batch = batches_for(embedded_model("embedded-fast"), recipe).make(made, random.Random(0), joint=layout == "joint")
    with torch.no_grad():
        found = forward.run(model, batch.layout, recipe.read_layers).masses
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
        masses = forward.run(model, batch.layout, (1,)).masses
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


def test_independent_passages_do_not_see_each_other(sources, initial_model):
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
                forward.run(model, replace(layout, ids=ids), (1,)).states
                for ids in (layout.ids, layout.ids.where(~first, 2000))
            )
        assert not torch.allclose(before[first], after[first])
        assert torch.allclose(before[rest], after[rest]) is not bool(layout.joint)


def test_a_batch_moves_whole(sources, initial_model):
    batch = batches_for(initial_model, train.Recipe(**TINY)).make(
        [sources.packs.draw(random.Random(0))], random.Random(0)
    )
    moved = forward.moved(batch, "meta")
    assert {moved.answers.device.type, moved.layout.parts.device.type, moved.texts.ids[0].device.type} == {"meta"}
    assert moved.texts.inside[0].shape == batch.texts.inside[0].shape
