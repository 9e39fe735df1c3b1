"""Losses, their targets, and the starts of the readouts."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from qr_core.training import data, forward, losses, packs, token_teacher, train
from tests.unit.training.tiny import TINY, batches_for


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
        read = forward.run(model, batch.layout, recipe.read_layers, to_the_end=True)
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


@pytest.mark.parametrize("share", [1e-3, 1e-6, 1e-9, 0.0])
def test_moving_mass_elsewhere_does_not_lower_the_loss(share, sources, initial_model, monkeypatch):
    """Passages keep a share of a mass that is as it should be; with none they are equal, and so is what is lost."""
    recipe = train.Recipe(**TINY)
    batches = batches_for(initial_model, recipe)
    teacher = token_teacher.TokenTeacher(initial_model)
    model = train.new_model(recipe, torch.randn(len(batches.tokenizer), 32), batches.tokenizer)
    rng = random.Random(2)
    batch = batches.make([sources.packs.draw(rng) for _ in range(3)], rng)
    present = batch.passages[:, None]
    wanted = losses.targets(batch, teacher.states(batch.texts)[1], recipe.temperature)
    even = present / present.sum(dim=2, keepdim=True)
    right = 0.5 * torch.cat([even, wanted], dim=1)  # of `N/A`, then of the queries; the other half is elsewhere

    def found(of_it):
        monkeypatch.setattr(losses, "passage_masses", lambda *_: of_it * right[:, None])
        with torch.no_grad():
            return losses.losses(model, losses.Readouts(32, 32), batch, recipe, teacher)

    least, other = found(1.0), found(share)
    entropy = -torch.special.xlogy(wanted, wanted).sum(dim=2)[batch.queries].mean()
    assert float(least.retrieval) == pytest.approx(float(entropy), abs=1e-3)
    assert float(other.retrieval) >= float(least.retrieval) - 1e-4
    assert float(other.null) >= float(least.null) - 1e-4
    if share == 0:
        counts = batch.passages.sum(dim=1)
        assert float(other.null) == pytest.approx(float(counts.log().mean()), abs=1e-4)
        asked = counts[:, None].expand_as(batch.queries)[batch.queries]
        assert float(other.retrieval) == pytest.approx(float(asked.log().mean()), abs=1e-4)


def test_losses_reach_every_part(sources, initial_model):
    """Independent and joint packs give gradients to queries, keys and embeddings, distances to the readouts."""
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
