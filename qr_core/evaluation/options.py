"""Options: what `qrhead eval` is asked, in groups: the data, the systems, who answers, and how results are counted.

Each field's help is what the command line shows. A scorer's own options are `qr_core.options.ScorerOptions`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from qr_core.errors import InputError
from qr_core.fields import option
from qr_core.options import ScorerOptions
from qr_core.types import Order

CandidateOrder = Literal["given", "reversed", "shuffled"]
DATA, SYSTEMS, ABLATIONS, GENERATION, RESULTS = "Data", "Systems", "Ablations", "Generation", "Results"


@dataclass(frozen=True)
class DataOptions:
    """Which work is done: a task, its data, and which part of it."""

    task: str = option("beir", "Kind of data.", registry="qr_core.evaluation.tasks:TASKS", panel=DATA)
    data: Path | None = option(
        None,
        "beir: a BEIR folder. longcontext, clipper: a JSON file, or a folder of books or meetings. longmemeval, "
        "multihop: the official JSON. niah: a text to hide needles in. spans: spans.json.",
        panel=DATA,
    )
    candidates: Path | None = option(
        None, "beir: TREC run, or JSON lines of query-id and candidates. Default: BM25's.", panel=DATA
    )
    candidates_by_title: int | None = option(
        None,
        "beir: this many documents that share the answer's title, as candidates.",
        flags=("--candidates-by-title", "--pool-by-title"),
        least=2,
        panel=DATA,
    )
    depth: int | None = option(None, "beir: at most this many candidates, the first ones.", least=1, panel=DATA)
    max_words: int | None = option(None, "beir: at most this many words of a document.", least=1, panel=DATA)
    lengths: tuple[int, ...] = option(
        (1000, 4000), "niah: lengths of the haystack, in tokens.", least=1, most=10**7, panel=DATA
    )
    depths: tuple[float, ...] = option(
        (0.0, 0.25, 0.5, 0.75, 1.0), "niah: where needles stand, 0 first, 1 last.", least=0, most=1, panel=DATA
    )
    needles: Path | None = option(
        None, "niah: JSON lines of needle, question, answer. Default: four built in.", panel=DATA
    )
    limit: int | None = option(None, "At most this many queries, drawn with the seed.", least=1, panel=DATA)
    seed: int = option(0, "Of drawing, shuffling and intervals.", panel=DATA)
    order: CandidateOrder = option("given", "Order of the candidates in the prompt.", panel=ABLATIONS)

    @property
    def prompt_order(self) -> Order:
        """The order that a scorer is asked for: shuffled candidates are shuffled before it sees them."""
        return "reversed" if self.order == "reversed" else "given"


@dataclass(frozen=True)
class SystemOptions:
    """Which systems take part, and what they are made from beside the scorer's options."""

    systems: tuple[str, ...] = option(
        ("qr", "bm25"),
        "Comma-separated. all: every head (In-Context Re-ranking). given: the candidates' own order. full-context: "
        "answers only.",
        registry="qr_core.evaluation.lineup:SYSTEMS",
        panel=SYSTEMS,
    )
    retrieval_heads: str | None = option(
        None, "Head set of the system retrieval-heads, from detect --criterion copy-paste.", panel=SYSTEMS
    )
    draws: int = option(5, "random-heads: how many sets, each as large as qr's.", least=1, panel=SYSTEMS)
    bm25_whole: bool = option(
        False,
        "bm25: word statistics of the whole corpus, not of each query's candidates.",
        flags="--bm25-whole",
        panel=SYSTEMS,
    )
    dense_model: str | None = option(None, "dense: a sentence-transformers model.", panel=SYSTEMS)
    cross_encoder_model: str | None = option(None, "cross-encoder: its name or folder.", panel=SYSTEMS)
    ranker: str | None = option(None, "rankgpt: a chat model, or an OpenAI-compatible address.", panel=SYSTEMS)
    ranker_model: str | None = option(None, "rankgpt: which model an address should use.", panel=SYSTEMS)
    segments: tuple[int, ...] = option(
        (),
        "Also rank with the input cut into this many segments, such as 1,2,4,8.",
        flags=("--segments", "--windows"),
        least=1,
        most=10**6,
        panel=ABLATIONS,
    )
    orders: int = option(0, "Also rank the candidates in this many shuffled orders.", least=0, panel=ABLATIONS)
    num_heads: int | None = option(None, "At most this many heads of the set, the first.", least=1, panel=ABLATIONS)
    max_layer: int | None = option(None, "Only heads of layers up to this one, from 0.", least=0, panel=ABLATIONS)


@dataclass(frozen=True)
class AnswerOptions:
    """Who answers and who judges."""

    generator: str | None = option(
        None,
        "longmemeval, clipper, niah: let this model (hub id or folder) or OpenAI-compatible address answer "
        "from what each system ranks first.",
        panel=GENERATION,
    )
    generator_model: str | None = option(None, "Which model the generator's address should use.", panel=GENERATION)
    judge: str | None = option(
        None, "Model or address that decides whether a reply is right. CLIPPER needs none.", panel=GENERATION
    )
    judge_model: str | None = option(None, "Which model the judge's address should use.", panel=GENERATION)
    judge_prompt: Path | None = option(
        None, "The judge's prompt, with {question}, {answer}, {reply}.", panel=GENERATION
    )
    top_k: int = option(5, "Documents that the generator is given.", least=1, panel=GENERATION)
    max_new_tokens: int = option(256, "Most tokens of an answer.", least=1, panel=GENERATION)
    timeout: float = option(120.0, "Seconds to wait for an address.", least=0.1, panel=GENERATION)

    def __post_init__(self) -> None:
        if self.generator is None and (self.judge is not None or self.judge_prompt is not None):
            raise InputError("--judge needs --generator, whose replies it judges")
        if self.judge is None and (self.judge_model is not None or self.judge_prompt is not None):
            raise InputError("--judge-model and --judge-prompt need --judge")
        if self.generator is None and self.generator_model is not None:
            raise InputError("--generator-model needs --generator, the address that serves it")


@dataclass(frozen=True)
class CountOptions:
    """How results are counted."""

    measures: str | None = option(
        None, "In ir-measures' names, such as nDCG@10,R(rel=2)@5. Default: the task's.", panel=RESULTS
    )
    exponential_gain: bool = option(False, "nDCG counts 2^grade - 1.", flags="--exponential-gain", panel=RESULTS)
    baseline: str | None = option(None, "What others are compared to. Default: bm25.", panel=RESULTS)


@dataclass(frozen=True)
class EvaluationOptions:
    """All that an evaluation is asked.

    Raises
    ------
    InputError
        When options go with nothing.
    """

    data: DataOptions = field(default_factory=DataOptions)
    systems: SystemOptions = field(default_factory=SystemOptions)
    scorer: ScorerOptions = field(default_factory=ScorerOptions)
    answers: AnswerOptions = field(default_factory=AnswerOptions)
    counting: CountOptions = field(default_factory=CountOptions)

    def given(self) -> dict[str, Any]:
        """The options of this room that are not left at their defaults, by name."""
        return {name: value for name, value, default in self._own() if value != default}

    def value(self, name: str) -> Any:
        """An option of this room by its name."""
        return next(value for known, value, _ in self._own() if known == name)

    def _own(self) -> Iterator[tuple[str, Any, Any]]:
        for group in (self.data, self.systems, self.answers, self.counting):
            for one in fields(group):
                yield one.name, getattr(group, one.name), one.default


def flag(name: str) -> str:
    """An option's name on the command line."""
    return f"--{name.replace('_', '-')}"
