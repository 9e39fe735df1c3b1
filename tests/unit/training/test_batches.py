"""Packs as tensors: positions, made-up words, and who draws which."""

from __future__ import annotations

import random

import torch
from torch.utils.data import DataLoader

from qr_core.training import data, forward, packs, train
from qr_core.training.batches import COMMON_IDS, Steps
from tests.unit.training.tiny import TINY, batches_for, forks, texts_of


def test_independent_passages_share_their_positions(sources, initial_model):
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

    joint, independent = (spans(layout) for layout in made)
    prefix = made[0].positions[(made[0].parts >= 0) & (made[0].parts <= forward.LATE)]
    assert torch.equal(prefix, torch.arange(len(prefix)))
    numbers = range(1, len(pack.passages) + 1)
    opening = independent[forward.INTRODUCTION][1]
    assert {independent[number][0] for number in numbers} == {opening}
    assert independent[forward.LATE][0] == opening + max(independent[number][1] for number in numbers)
    for found in (joint, independent):
        assert {found[number][0] for number in found if number > forward.LATE} == {sum(found[forward.LATE])}
        assert len(found) == 1 + len(pack.passages) + 1 + 1 + len(pack.queries)
    for number in numbers:  # without their numbers
        assert independent[number][1] < joint[number][1] or independent[number][1] == recipe.passage_tokens


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
