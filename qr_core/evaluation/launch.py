"""Launch: from options to work, systems and a plan, and to the results of carrying it out.

Knows nothing of how options are written or how results are shown.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path

from qr_core.errors import InputError
from qr_core.evaluation import lineup, metrics
from qr_core.evaluation.answers.judging import Judge
from qr_core.evaluation.answers.replies import Answering, Track
from qr_core.evaluation.data import spans
from qr_core.evaluation.evaluate import Plan, Results, counter, evaluate
from qr_core.evaluation.lineup import Entry, Settings
from qr_core.evaluation.pooled import rank_pooled
from qr_core.evaluation.provenance import digest, machine, versions
from qr_core.evaluation.report.write import write_report
from qr_core.evaluation.runner import Handle
from qr_core.evaluation.tasks import Choice, Task, read_work
from qr_core.evaluation.work import Work
from qr_core.files.inputs import read_text
from qr_core.generation import Generator, generator_of
from qr_core.parallel.pool import Workers


@dataclass(frozen=True)
class Asking:
    """Who answers and who judges; see the command's options."""

    generator: str | None
    generator_model: str | None
    judge: str | None
    judge_model: str | None
    judge_prompt: Path | None
    top_k: int
    max_new_tokens: int
    timeout: float
    device: str | None
    dtype: str

    def check(self, task: Task) -> None:
        """Refuse options that go with nothing.

        Raises
        ------
        InputError
        """
        if self.generator is None and (self.judge is not None or self.judge_prompt is not None):
            raise InputError("--judge needs --generator, whose replies it judges")
        if self.judge is None and (self.judge_model is not None or self.judge_prompt is not None):
            raise InputError("--judge-model and --judge-prompt need --judge")
        if self.generator is None and self.generator_model is not None:
            raise InputError("--generator-model needs --generator, the address that serves it")
        if self.generator is not None and task not in (Task.longmemeval, Task.clipper, Task.niah):
            raise InputError("--generator goes with --task longmemeval, clipper or niah")

    def make(self) -> Answering | None:
        """None where nobody answers.

        Raises
        ------
        InputError, ModelLoadError
            As for `generator_of` and `Judge`.
        """
        if self.generator is None:
            return None
        judge = None
        if self.judge is not None:
            prompt = None if self.judge_prompt is None else read_text(self.judge_prompt)
            judge = Judge(self._generator(self.judge, self.judge_model), prompt)
        generator = self._generator(self.generator, self.generator_model)
        return Answering(generator, judge, self.top_k, self.max_new_tokens, generator.name)

    def _generator(self, name: str, model: str | None) -> Generator:
        return generator_of(name, model, self.timeout, device=self.device, dtype=self.dtype)


@dataclass(frozen=True)
class Counting:
    """How results are counted; see the command's options."""

    measures: str | None
    exponential_gain: bool
    baseline: str | None


def launch(
    task: Task,
    data: Path | None,
    choice: Choice,
    systems: Sequence[str],
    settings: Settings,
    asking: Asking,
    counting: Counting,
    folder: Path | None,
    track: Track,
    workers: Workers | None = None,
) -> Results:
    """Evaluate, and write the report where there is a folder for it; with `workers`, attention systems run on Ray.

    Raises
    ------
    InputError, HeadSetError, ModelLoadError
        When options or data are wrong, or nothing can be run; see the functions that are called.
    """
    asking.check(task)
    if "full-context" in systems and asking.generator is None:
        raise InputError("the system full-context only answers: pass --generator")
    if task is Task.spans and (counting.measures is not None or counting.exponential_gain):
        raise InputError("--measures and --exponential-gain do not go with --task spans")
    if task is Task.spans and (settings.windows or settings.orders):
        raise InputError("--windows and --orders do not go with --task spans")
    if task is Task.spans and workers is not None:
        raise InputError("--engine ray does not go with --task spans")
    chosen = metrics.MEASURES.get(task.value, ()) if counting.measures is None else metrics.parse(counting.measures)
    entries = lineup.line_up(systems, settings)
    answering, count = asking.make(), counter(entries)
    measured, judgements = None, ""
    if task is Task.spans:
        work, measured, judgements = _spans(data, choice)
    else:
        work = read_work(task, data, choice, answering is not None, count)
    plan = Plan(
        measures=chosen,
        exponential_gain=counting.exponential_gain,
        baseline=counting.baseline,
        seed=choice.seed,
        measured=measured,
        judgements=judgements,
        count=count,
        answering=answering,
        elsewhere=None if workers is None else partial(rank_pooled, settings, workers),
    )
    results = evaluate(work, entries, plan, folder, track)
    if answering and answering.judge is None and not all(wanted.labels for wanted in work.expected.values()):
        results.notes.append("replies are not judged: pass --judge to tell which are right")
    if workers is not None:
        results.notes.append("attention systems ranked on Ray: their seconds and memory are those of single workers")
    results.report = {
        "task": task.value,
        "data": data.name if data else "default",
        "queries": len(work.pools),
        "order": "shuffled" if choice.shuffled else settings.order,
        "notes": [*work.notes, *results.notes],
        "choice": {name: str(value) if isinstance(value, Path) else value for name, value in asdict(choice).items()},
        "gain": "exponential" if counting.exponential_gain else "linear",
        "measures": list(chosen),
        "answering": answering.record() if answering else None,
        "versions": versions(),
        "seed": choice.seed,
        "machine": machine(),
        **results.report,
    }
    if folder is not None:
        write_report(folder, results, work)
    return results


def _spans(data: Path | None, choice: Choice) -> tuple[Work, Callable[[Entry], Handle], str]:
    """The work, how systems do it, and a digest of what they are measured by."""
    if data is None:
        raise InputError("--task spans needs --data")
    corpora = spans.limited(spans.read_spans(data), choice.limit, random.Random(choice.seed))
    pools, golds = spans.span_pools(corpora)

    def measured(entry: Entry) -> Handle:
        if entry.scorer is not None:
            return spans.measured(spans.attention_pruner(entry.scorer), golds)
        if entry.make is None:
            raise InputError(f"the system {entry.name} does not rank spans")
        made = cache(entry.make)
        return lambda pools: spans.measured(spans.ranking_pruner(made()), golds)(pools)

    return Work(pools, {}), measured, digest([(key, gold) for key, (_, gold) in golds.items()])
