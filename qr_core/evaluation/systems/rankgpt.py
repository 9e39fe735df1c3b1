"""Listwise reranking by a generator: it reads numbered passages and writes their numbers, the best first.

Permutation generation with sliding windows is RankGPT's idea (Sun et al., arXiv 2304.09542): a window moves from the
back of the list to its front, and what it finds best moves along (`window` and `step` are that paper's words; these
windows have nothing to do with those of a model's layers). The QRHead paper's baseline RankGPT-Bubble is of this kind.
The prompt here is this project's own, so figures are not the published system's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field

from qr_core.checks import check_whole_number
from qr_core.errors import ContextLengthError, InputError
from qr_core.evaluation.options import EvaluationOptions
from qr_core.evaluation.systems.entry import Entry
from qr_core.evaluation.work import CandidateSet
from qr_core.generation import Generator, LocalGenerator, generator_of
from qr_core.types import Document

WINDOW, STEP = 20, 10
"""Passages in a window, and passages from one window's start to the next's: RankGPT's."""
MAX_WORDS, LEAST_WORDS = 300, 20
"""Words of a passage that are shown, and the fewest when a window does not fit the generator's context."""
TRIES = 3
REPLY_TOKENS = 10
"""Of the reply, for each passage: brackets, number and arrow take four to six in common vocabularies."""

_BRACKETED = re.compile(r"\[\s*([0-9]{1,6})\s*\]")
_BARE = re.compile(r"(?<![0-9])([0-9]{1,6})(?![0-9])")


@dataclass(frozen=True)
class Settings:
    """What decides the questions, and so the ranking.

    Attributes
    ----------
    window : int
        Passages in one message.
    step : int
        How far the window moves; less than `window`.
    max_words : int
        How much of a passage, its title included, is shown; the rest is cut. Words are what blanks separate, so text
        written without blanks is never cut.
    tries : int
        How often a window is asked about, at most, while replies name no passage. A `LocalGenerator` is asked once:
        it decodes greedily, and would say the same again.
    max_new_tokens : int, optional
        Of a reply; by default ten for each passage. A model that thinks before it answers needs more.

    Raises
    ------
    InputError
        When a number is out of range.
    """

    window: int = WINDOW
    step: int = STEP
    max_words: int = MAX_WORDS
    tries: int = TRIES
    max_new_tokens: int | None = None

    def __post_init__(self) -> None:
        check_whole_number("window", self.window, 2)
        check_whole_number("max_new_tokens", self.max_new_tokens)
        for name in ("step", "max_words", "tries"):
            check_whole_number(name, getattr(self, name))
        if self.step >= self.window:
            raise InputError(f"step is {self.step}, window {self.window}: windows must overlap, so use a smaller step")


@dataclass
class Counts:
    """What a report must say about the replies, counted since the ranker was made.

    Attributes
    ----------
    windows : int
        Windows that were ranked.
    calls : int
        Replies to them, those to repeated questions included.
    malformed : int
        Windows that kept their order, because no reply named a passage.
    incomplete : int
        Windows whose reply left out some passages; those follow the named ones, in their former order.
    shortened : int
        Windows whose passages were cut below the limit on words, to fit the generator's context.
    """

    windows: int = 0
    calls: int = 0
    malformed: int = 0
    incomplete: int = 0
    shortened: int = 0


@dataclass(frozen=True)
class RankGPT:
    """Ranks each candidate set with a generator, window after window. A `Ranker`.

    Neighbouring windows share `window - step` places, so that many of the best passages reach the top of the list, in
    order, if the generator orders every window rightly. The list below them is only partly sorted.

    Attributes
    ----------
    generator : Generator
    settings : Settings
    counts : Counts
        What the replies were like, over all candidate sets so far.
    """

    generator: Generator
    settings: Settings = Settings()
    counts: Counts = field(default_factory=Counts, init=False, compare=False)

    def __call__(self, sets: Sequence[CandidateSet]) -> Iterable[list[float]]:
        """One list of scores per set; a set that fails raises when its turn comes, and the next can still follow."""
        return map(self.scores, sets)

    def scores(self, candidates: CandidateSet) -> list[float]:
        """Places as scores: the best of n documents gets n, the last 1.

        Raises
        ------
        GenerationError
            When the generator fails; an endpoint whose context is too short fails so, too.
        ContextLengthError
            When a window of the shortest passages does not fit its context.
        """
        window, step = self.settings.window, self.settings.step
        order = list(range(len(candidates.documents)))
        for start in window_starts(len(order), window, step):
            shown = order[start : start + window]
            places = self._ordered(candidates.query, [candidates.documents[index] for index in shown])
            order[start : start + window] = [shown[place] for place in places]
        scores = [0.0] * len(order)
        for place, index in enumerate(order):
            scores[index] = float(len(order) - place)
        return scores

    def _ordered(self, query: str, documents: Sequence[Document]) -> list[int]:
        """Places of `documents`, the best first."""
        places: list[int] = []
        words = self.settings.max_words
        for _ in range(1 if isinstance(self.generator, LocalGenerator) else self.settings.tries):
            reply, words = self._reply(query, documents, words)
            self.counts.calls += 1
            places = named(reply, len(documents))
            if places:
                break
        self.counts.windows += 1
        self.counts.malformed += not places
        self.counts.incomplete += 0 < len(places) < len(documents)
        self.counts.shortened += words < self.settings.max_words
        return completed(places, len(documents))

    def _reply(self, query: str, documents: Sequence[Document], words: int) -> tuple[str, int]:
        """The generator's reply, and how many words of each passage it was given: halved until the message fits."""
        room = self.settings.max_new_tokens or REPLY_TOKENS * len(documents)
        while True:
            try:
                return self.generator.generate(message(query, documents, words), room), words
            except ContextLengthError as error:
                if words <= LEAST_WORDS:
                    raise ContextLengthError(
                        f"{len(documents)} passages of {words} words do not fit the context of {self.generator.name}: "
                        f"use a window smaller than {self.settings.window}"
                    ) from error
                words = max(LEAST_WORDS, words // 2)


def window_starts(count: int, window: int, step: int) -> list[int]:
    """Where windows start, in the order in which they are ranked; the last one starts at the top of the list."""
    return [*range(count - window, 0, -step), 0] if count > 1 else []


def message(query: str, documents: Sequence[Document], max_words: int) -> str:
    """What the generator is asked.

    A passage takes one line, whatever its white space, so no passage can start a line with a number of its own. The
    query stands before and after the passages: a decoder reads them with it in mind, and answers right after it.
    """
    asked = " ".join(query.split())
    lines = [f"[{number}] {_passage(document, max_words)}" for number, document in enumerate(documents, start=1)]
    return (
        f"Below are {len(lines)} passages, one a line, each after its number. Compare how well they answer: {asked}\n\n"
        + "\n".join(lines)
        + f"\n\nQuery: {asked}\n"
        f"Put the numbers of all {len(lines)} passages in order, from the one that helps most with the query to the "
        "one that helps least, like this: [2] > [1]. Write only that line."
    )


def _passage(document: Document, max_words: int) -> str:
    text = f"{document.title}: {document.text}" if document.title else document.text
    return " ".join(text.split()[:max_words])


def named(reply: str, count: int) -> list[int]:
    """Places, from 0, of the passages a reply names, in its order; empty when it names none.

    Numbers in brackets count, or if there are none, all numbers. Repeated ones and ones beyond `count` are dropped,
    and so is what a model thinks aloud between `<think>` and `</think>`.
    """
    said = reply.rpartition("</think>")[2].partition("<think>")[0]
    numbers = _BRACKETED.findall(said) or _BARE.findall(said)
    return [place for place in dict.fromkeys(int(number) - 1 for number in numbers) if 0 <= place < count]


def completed(places: Sequence[int], count: int) -> list[int]:
    """`places`, then the places up to `count` that are not among them, in order."""
    return [*places, *sorted(set(range(count)) - set(places))]


def rankgpt_entries(options: EvaluationOptions) -> list[Entry]:
    """The one entry; its replies are counted."""
    generator = generator_of(
        str(options.systems.ranker),
        options.systems.ranker_model,
        options.answers.timeout,
        device=options.scorer.device,
        dtype=options.scorer.dtype,
    )
    ranker = RankGPT(generator)
    about = {"model": generator.name, **asdict(ranker.settings)}
    return [Entry("rankgpt", about, lambda: ranker, replies=lambda: asdict(ranker.counts))]
