"""Launch: from options to work, systems and a plan, and to the results of carrying it out."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from qr_core.evaluation import metrics
from qr_core.evaluation.answers.judging import Judge
from qr_core.evaluation.answers.replies import Answering, Track, untracked
from qr_core.evaluation.evaluate import Plan, Results, counter, evaluate
from qr_core.evaluation.lineup import line_up
from qr_core.evaluation.options import EvaluationOptions
from qr_core.evaluation.pooled import rank_pooled
from qr_core.evaluation.provenance import machine, versions
from qr_core.evaluation.report.write import write_report
from qr_core.evaluation.tasks import check_options, read_work
from qr_core.evaluation.work import Request, Work
from qr_core.files.inputs import read_text
from qr_core.generation import Generator, generator_of
from qr_core.parallel.pool import Workers


def launch(
    options: EvaluationOptions, folder: Path | None = None, track: Track = untracked, workers: Workers | None = None
) -> Results:
    """Evaluate, and write the report where there is a folder for it; with `workers`, attention systems run on Ray.

    Raises
    ------
    InputError, HeadSetError, ModelLoadError
        When options or data are wrong, or nothing can be run; see the functions that are called.
    """
    task = check_options(options.data.task, [*options.given(), *(["engine ray"] if workers is not None else ())])
    counting = options.counting
    measures = task.measures if counting.measures is None else metrics.parse(counting.measures)
    entries = line_up(options)
    answering, count = answering_of(options), counter(entries)
    work = read_work(task, Request(options.data, answering is not None, count))
    plan = Plan(
        measures=measures,
        exponential_gain=counting.exponential_gain,
        baseline=counting.baseline,
        seed=options.data.seed,
        count=count,
        answering=answering,
        elsewhere=None if workers is None else partial(rank_pooled, options, workers),
    )
    results = evaluate(work, entries, plan, folder, track)
    if answering and answering.judge is None and not all(wanted.labels for wanted in work.expected.values()):
        results.notes.append("replies are not judged: pass --judge to tell which are right")
    if workers is not None:
        results.notes.append("attention systems ranked on Ray: their seconds and memory are those of single workers")
    results.report = _report(options, work, plan, results)
    if folder is not None:
        write_report(folder, results, work)
    return results


def _report(options: EvaluationOptions, work: Work, plan: Plan, results: Results) -> dict[str, Any]:
    """What was found, after everything that it depends on."""
    data = options.data
    choice = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(data).items()}
    del choice["task"], choice["data"]
    # The names that these had before, kept until 1.0.
    choice |= {"pool_by_title": data.candidates_by_title, "shuffled": data.order == "shuffled"}
    return {
        "task": data.task,
        "data": data.data.name if data.data else "default",
        "queries": len(work.candidate_sets),
        "order": data.order,
        "notes": [*work.notes, *results.notes],
        "choice": choice,
        "gain": "exponential" if plan.exponential_gain else "linear",
        "measures": list(plan.measures),
        "answering": plan.answering.record() if plan.answering else None,
        "versions": versions(),
        "seed": plan.seed,
        "machine": machine(),
        **results.report,
    }


def answering_of(options: EvaluationOptions) -> Answering | None:
    """Who answers and who judges; None where nobody answers.

    Raises
    ------
    InputError, ModelLoadError
        As for `generator_of` and `Judge`.
    """
    asked = options.answers

    def made(name: str, model: str | None) -> Generator:
        return generator_of(name, model, asked.timeout, device=options.scorer.device, dtype=options.scorer.dtype)

    if asked.generator is None:
        return None
    judge = None
    if asked.judge is not None:
        prompt = None if asked.judge_prompt is None else read_text(asked.judge_prompt)
        judge = Judge(made(asked.judge, asked.judge_model), prompt)
    generator = made(asked.generator, asked.generator_model)
    return Answering(generator, judge, asked.top_k, asked.max_new_tokens, generator.name)
