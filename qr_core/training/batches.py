"""From packs to tensors: prompts of the `plain` template side by side, and the batches of a training run."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import IterableDataset, get_worker_info
from transformers import PreTrainedTokenizerFast

from qr_core.prompts.templates import INTRODUCTION as INTRODUCTION_TEXT
from qr_core.prompts.templates import LATE_INSTRUCTION, NULL_QUERY, QUERY_LABEL
from qr_core.training.data import Passage
from qr_core.training.forward import INTRODUCTION, LATE, PADDING, Layout
from qr_core.training.packs import Pack, Packs
from qr_core.training.recipe import Recipe
from qr_core.training.token_teacher import Texts

MULTIPLE = 16
"""Packs are padded to a multiple of this many tokens, which attention on a GPU asks for."""
QUERY_TOKENS = 64
GROUP = 4
"""Packs of this many steps are sorted by length before they are dealt to steps: less padding."""
COMMON_IDS = 3000
"""Words that are one token below this number are never renamed: the vocabulary is sorted by how common they are."""


@dataclass(frozen=True)
class Batch:
    """Packs as tensors, with up to P passages and Q queries; besides those every pack asks `N/A`, its first query.

    Attributes
    ----------
    layout : Layout
    answers, lexical : Tensor
        Shape (packs, Q, P): which passages answer, and BM25's scores.
    label_weights : Tensor
        Shape (packs, Q): weight of the answers against teacher and BM25.
    passages, queries : Tensor
        Bool, shapes (packs, P) and (packs, Q): which there are.
    texts : Texts
        Passages without their marks, and queries; of all packs.
    text_places : Tensor
        Shape (texts,): where each stands in a flat view of (packs, P + Q).
    ends : Tensor
        Shape (texts,): where its last token stands in a flat view of (packs, N).
    tokens, text_of : Tensor
        Shape (tokens of texts,): where each token stands in that view, and the text it belongs to.
    """

    layout: Layout
    answers: Tensor
    lexical: Tensor
    label_weights: Tensor
    passages: Tensor
    queries: Tensor
    texts: Texts
    text_places: Tensor
    ends: Tensor
    tokens: Tensor
    text_of: Tensor


@dataclass(frozen=True)
class EncodedPack:
    """A pack's tokens and positions, its parts, and (part, start, end) of its texts, passages first."""

    ids: Tensor
    positions: Tensor
    parts: Tensor
    joint: bool
    spans: list[tuple[int, int, int]]


class Batches:
    """Turns packs into tensors with the strings of the `plain` template.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerFast
    marks : (int, int)
        The teacher's tokens for a text's start and end.
    recipe : Recipe
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, marks: tuple[int, int], recipe: Recipe) -> None:
        self.tokenizer, self.marks, self.recipe = tokenizer, marks, recipe
        self.known: dict[str, list[int]] = {}
        self.introduction = self.encode(INTRODUCTION_TEXT)
        self.late = self.encode(f"{LATE_INSTRUCTION}\n\n{QUERY_LABEL}")
        words = sorted((place, word) for word, place in tokenizer.get_vocab().items() if place > COMMON_IDS)
        self.word_starts = [place for place, word in words if word.isalpha() and word.isascii()]
        self.continuing = frozenset(i for word, i in tokenizer.get_vocab().items() if word.startswith("##"))
        self.subwords = sorted(self.continuing)

    def plain(self) -> Batches:
        """The same without made-up words and gaps."""
        return Batches(self.tokenizer, self.marks, replace(self.recipe, renamed_share=0.0, spread_share=0.0))

    def encode(self, text: str) -> list[int]:
        """Token ids of a piece of a prompt, remembered."""
        if text not in self.known:
            self.known[text] = list(self.tokenizer.encode(text, add_special_tokens=False))
        return self.known[text]

    def make(
        self, packs: Sequence[Pack], rng: random.Random, joint: bool | None = None, titled: bool | None = None
    ) -> Batch:
        """`joint` and `titled`, whether passages show their titles, are drawn for each pack when not given."""
        laid = [self._laid(pack, rng, joint, titled) for pack in packs]
        longest = -(-max(len(one.ids) for one in laid) // MULTIPLE) * MULTIPLE
        filled = [torch.zeros(longest, dtype=torch.long)]  # so that all are padded to a multiple

        def padded(rows: list[Tensor], value: int = 0) -> Tensor:
            return pad_sequence([*rows, *filled], batch_first=True, padding_value=value)[:-1]

        layout = Layout(
            ids=padded([one.ids for one in laid]),
            positions=padded([one.positions for one in laid]),
            parts=padded([one.parts for one in laid], PADDING),
            joint=torch.tensor([one.joint for one in laid]),
        )
        most_passages = max(len(pack.passages) for pack in packs)
        most_queries = max(len(pack.queries) for pack in packs)
        shape = (len(packs), most_queries, most_passages)
        answers, lexical = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape)
        weights = torch.zeros(shape[:2])
        passages, queries = torch.zeros(shape[0], shape[2], dtype=torch.bool), torch.zeros(shape[:2], dtype=torch.bool)
        places, texts, starts, ends = [], [], [], []
        for row, (pack, one) in enumerate(zip(packs, laid, strict=True)):
            across, down = len(pack.passages), len(pack.queries)
            answers[row, :down, :across], lexical[row, :down, :across] = pack.golds, pack.lexical
            weights[row, :down] = pack.label_weights
            passages[row, :across], queries[row, :down] = True, True
            for part, start, end in one.spans:
                column = part - 1 if part < LATE else most_passages + part - LATE - 2
                places.append(row * (most_passages + most_queries) + column)
                texts.append(one.ids[start:end].tolist())
                starts.append(row * longest + start)
                ends.append(row * longest + end - 1)
        first, last = torch.tensor(starts), torch.tensor(ends)
        lengths = last + 1 - first
        text_of = torch.arange(len(texts)).repeat_interleave(lengths)
        within = torch.arange(len(text_of)) - (lengths.cumsum(0) - lengths)[text_of]
        return Batch(
            layout,
            answers,
            lexical,
            weights,
            passages,
            queries,
            Texts.of(texts, *self.marks),
            torch.tensor(places),
            last,
            first[text_of] + within,
            text_of,
        )

    def _laid(self, pack: Pack, rng: random.Random, joint: bool | None, titled: bool | None) -> EncodedPack:
        if titled is None:
            titled = rng.random() < self.recipe.titled_share
        if joint is None:
            joint = rng.random() < self.recipe.joint_share
        own = [self._passage(passage, titled) for passage in pack.passages]
        asked = [self.encode(query) for query in pack.queries]
        if rng.random() < self.recipe.renamed_share:
            own, asked = self._renamed(own, asked, rng)
        asked = [query[:QUERY_TOKENS] for query in asked]
        marks = [self.encode(f"[{number}]") if joint else [] for number in range(1, len(own) + 1)]
        own = [[*mark, *text][: self.recipe.passage_tokens] for mark, text in zip(marks, own, strict=True)]
        rows = [self.introduction, *own, self.late, self.encode(NULL_QUERY), *asked]
        count = 1 + len(own)
        lengths = torch.tensor([len(row) for row in rows])
        ends = lengths.cumsum(0)
        gaps = torch.zeros(len(rows), dtype=torch.long)
        if rng.random() < self.recipe.spread_share:
            spread = rng.randint(0, self.recipe.max_positions // 2)
            gaps[1:count] = torch.tensor(sorted(rng.randint(0, spread) for _ in own))
            gaps[count:] = gaps[count - 1]
        starts = ends - lengths + gaps
        if not joint:  # passages share their positions, and the query follows the longest
            starts[1:count] = lengths[0]
            starts[count] = lengths[0] + lengths[1:count].max() + gaps[count]
        starts[count + 1 :] = starts[count] + lengths[count]  # every query follows the late instruction
        within = torch.arange(int(ends[-1])) - (ends - lengths).repeat_interleave(lengths)
        parts = torch.tensor([INTRODUCTION, *range(1, count), *range(LATE, LATE + 2 + len(asked))])
        spans = list(zip(parts.tolist(), (ends - lengths).tolist(), ends.tolist(), strict=True))
        bare = [(part, start + len(mark), end) for (part, start, end), mark in zip(spans[1:count], marks, strict=True)]
        return EncodedPack(
            ids=torch.tensor([token for row in rows for token in row]),
            positions=starts.repeat_interleave(lengths) + within,
            parts=parts.repeat_interleave(lengths),
            joint=joint,
            spans=[*bare, *spans[count + 2 :]],
        )

    def _passage(self, passage: Passage, titled: bool) -> list[int]:
        title = self.encode(passage.title) if titled and passage.title else []
        return [*title, *self.encode(passage.text)]

    def _renamed(
        self, passages: list[list[int]], queries: list[list[int]], rng: random.Random
    ) -> tuple[list[list[int]], list[list[int]]]:
        """The same texts with some of their rarer words replaced, each by the same made-up word everywhere.

        What training text lacks (names, terms of a trade) comes as words of several tokens that mean nothing by
        themselves: the learner must find them again all the same.
        """
        made: dict[tuple[int, ...], list[int]] = {}
        share = rng.uniform(0.1, 0.6)

        def rename(text: list[int]) -> list[int]:
            words: list[list[int]] = []
            for token in text:
                if words and token in self.continuing:
                    words[-1].append(token)
                else:
                    words.append([token])
            for word in words:
                key = tuple(word)
                if key not in made:
                    rare = word[0] > COMMON_IDS or len(word) > 1
                    made[key] = self._word(rng) if rare and rng.random() < share else word
            return [token for word in words for token in made[tuple(word)]]

        return [rename(text) for text in passages], [rename(text) for text in queries]

    def _word(self, rng: random.Random) -> list[int]:
        return [rng.choice(self.word_starts), *rng.choices(self.subwords, k=rng.choice((0, 1, 1, 2, 2, 3)))]


class Steps(IterableDataset[Batch]):
    """Endless batches of `recipe.packs` packs; each worker of a loader draws its own.

    Parameters
    ----------
    packs : Packs
    batches : Batches
    recipe : Recipe
    step : int
        Where the run goes on: another start draws other packs.
    """

    def __init__(self, packs: Packs, batches: Batches, recipe: Recipe, step: int) -> None:
        self.packs, self.batches, self.recipe, self.step = packs, batches, recipe, step

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        rng = random.Random(f"{self.recipe.seed} {self.step} {worker.id if worker else 0}")
        size = self.recipe.packs
        while True:
            drawn = [self.packs.draw(rng) for _ in range(GROUP * size)]
            drawn.sort(key=lambda pack: sum(len(passage.text) for passage in pack.passages))
            for start in rng.sample(range(0, len(drawn), size), GROUP):
                yield self.batches.make(drawn[start : start + size], rng)
