"""Run: measure a subject over prompt lengths, depths and numbers of documents; the report is plain data.

Knows nothing of how a report is shown.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from qr_core.benchmark.memory import peak_memory
from qr_core.benchmark.sides import MANY, prompt_tokens, sides_of
from qr_core.benchmark.subject import Loaded, Subject, spread
from qr_core.benchmark.task import Task, task_of, task_of_tokens
from qr_core.benchmark.timing import Measured, agreement, exponent, ratio, summary, time_sides
from qr_core.errors import InputError
from qr_core.version import __version__

Tell = Callable[[str], None]
SHORTEST = 256
"""Tokens of a prompt: one document and the query have room."""
RATIOS = (
    ("joint / plain", "joint", "plain"),
    ("published / joint", "published", "joint"),
    ("second / joint", "second", "joint"),
    (f"{MANY} queries / joint", "many", "joint"),
    ("independent warm / cold", "independent-warm", "independent-cold"),
    ("independent cold / joint", "independent-cold", "joint"),
)


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes
    ----------
    lengths : sequence of int
        Tokens of the joint prompt.
    sides : sequence of str
        Of `sides.SIDES`, at each length.
    depths : sequence of int
        Deepest layers with a head, each beside a plain forward pass and the published algorithm, at the first length.
    documents : sequence of int
        Numbers of documents for the independent layout.
    repeats : int
        Rounds of each.
    memory : bool
        Whether to measure memory at each length.
    clock : str
        `wall`, or `cpu` where other work keeps the machine busy: ratios and medians are by this clock.
    """

    lengths: Sequence[int] = (4000,)
    sides: Sequence[str] = ("plain", "published", "joint")
    depths: Sequence[int] = ()
    documents: Sequence[int] = ()
    repeats: int = 5
    memory: bool = True
    clock: str = "wall"


def run(subject: Subject, plan: Plan, tell: Tell = lambda _: None) -> dict[str, Any]:
    """Measure everything that a plan asks for.

    Raises
    ------
    InputError
        When a length, a depth or a number of documents is out of range, before anything is measured.
    QRHeadError
        When the model cannot be loaded or read.
    """
    loaded = Loaded(subject)
    for depth in plan.depths:
        spread(loaded.name, loaded.shape, depth)
    if min(plan.lengths, default=SHORTEST) < SHORTEST or min(plan.documents, default=1) < 1:
        raise InputError(f"a prompt has at least {SHORTEST} tokens, and there is at least one document")
    if plan.depths or any(name in plan.sides for name in ("plain", "published")):
        loaded.whole()  # before any side that would do with fewer layers: loading is not measured
    else:
        loaded.partial()
    short = sides_of(loaded, task_of(2))
    time_sides({name: short[name] for name in dict.fromkeys((*plan.sides, *_more(plan)))}, 1, subject.device)

    report: dict[str, Any] = {"conditions": _conditions(loaded, plan)}
    tasks = [
        task_of_tokens(n, lambda task: prompt_tokens(loaded, task), MANY + 1 if "many" in plan.sides else 2)
        for n in plan.lengths
    ]
    report["lengths"] = [_at_length(loaded, task, plan, tell) for task in tasks]
    sizes = [entry["tokens"] for entry in report["lengths"]]
    report["length_exponents"] = {
        name: exponent(sizes, [entry["sides"][name]["seconds"]["median"] for entry in report["lengths"]])
        for name in plan.sides
        if name in ("plain", "published", "joint", "independent-cold", "independent-warm")
    }
    report["depths"] = [_at_depth(loaded.with_deepest(depth), tasks[0], plan, tell) for depth in plan.depths]
    report["documents"] = [_at_count(loaded, count, plan, tell) for count in plan.documents]
    report["document_exponents"] = {
        name: exponent(plan.documents, [entry["sides"][name]["seconds"]["median"] for entry in report["documents"]])
        for name in _APART
        if plan.documents
    }
    return report


_APART = ("independent-cold", "independent-warm")
_DEEP = ("plain", "published", "joint")


def _more(plan: Plan) -> tuple[str, ...]:
    """Sides that sweeps need beside those of the lengths."""
    return (*(_DEEP if plan.depths else ()), *(_APART if plan.documents else ()))


def _conditions(loaded: Loaded, plan: Plan) -> dict[str, Any]:
    subject = loaded.subject
    name = torch.cuda.get_device_name(subject.device) if subject.device.startswith("cuda") else platform.machine()
    return {
        "model": loaded.name,
        "layers": loaded.shape.layers,
        "heads": loaded.shape.heads,
        "key_heads": loaded.shape.kv_heads,
        "hidden": loaded.shape.hidden,
        "deepest": loaded.heads.deepest,
        "heads_read": sum(len(chosen) for chosen in loaded.heads.by_layer().values()),
        "dtype": str(loaded.partial().dtype).removeprefix("torch."),
        "device": subject.device,
        "device_name": name,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "repeats": plan.repeats,
        "clock": plan.clock,
        "cross_encoder": subject.cross_encoder or "6 layers, hidden size 384, random weights",
        "versions": {"qrhead": __version__, "torch": torch.__version__, "transformers": transformers.__version__},
    }


def _at_length(loaded: Loaded, task: Task, plan: Plan, tell: Tell) -> dict[str, Any]:
    tokens = prompt_tokens(loaded, task)
    every = sides_of(loaded, task)
    found = time_sides(
        {name: every[name] for name in plan.sides},
        plan.repeats,
        loaded.subject.device,
        lambda what: tell(f"{tokens} tokens, {what}"),
    )
    del every
    memory = peak_memory(loaded.subject, task, plan.sides, tell) if plan.memory else {}
    entry: dict[str, Any] = {
        "tokens": tokens,
        "documents": len(task.documents),
        "sides": {name: _side(found, name, tokens, plan, memory.get(name)) for name in plan.sides},
        "ratios": {
            said: ratio(found[over].by(plan.clock), found[under].by(plan.clock))
            for said, over, under in RATIOS
            if over in found and under in found
        },
        "agreement": agreement(found),
    }
    if "plain" in memory and "joint" in memory:
        entry["ratios"]["peak memory, joint / plain"] = memory["joint"] / max(1, memory["plain"])
    return entry


def _side(
    found: dict[str, Measured], name: str, tokens: int, plan: Plan, peak: int | None
) -> dict[str, float | dict[str, float] | list[float] | None]:
    seconds = found[name].by(plan.clock)
    times = summary(seconds)
    return {
        "seconds": times,
        "wall": found[name].wall,
        "cpu": found[name].cpu,
        "tokens_per_second": tokens * (MANY if name == "many" else 1) / times["median"],
        "of_plain": ratio(seconds, found["plain"].by(plan.clock)) if "plain" in found else None,
        "peak_bytes": peak,
    }


def _at_depth(loaded: Loaded, task: Task, plan: Plan, tell: Tell) -> dict[str, Any]:
    every, depth = sides_of(loaded, task), loaded.heads.deepest
    found = time_sides(
        {name: every[name] for name in _DEEP},
        plan.repeats,
        loaded.subject.device,
        lambda what: tell(f"deepest layer {depth}, {what}"),
    )
    plain, published, joint = (found[name].by(plan.clock) for name in _DEEP)
    return {
        "deepest": depth,
        "joint_of_plain": ratio(joint, plain),
        "published_of_plain": ratio(published, plain),
        "published_of_joint": ratio(published, joint),
        "expected": expected_share(depth, loaded.shape.layers),
        "seconds": {name: summary(found[name].by(plan.clock)) for name in _DEEP},
    }


def _at_count(loaded: Loaded, count: int, plan: Plan, tell: Tell) -> dict[str, Any]:
    task = task_of(count)
    every = sides_of(loaded, task)
    found = time_sides(
        {name: every[name] for name in _APART},
        plan.repeats,
        loaded.subject.device,
        lambda what: tell(f"{count} documents, {what}"),
    )
    tokens = len(loaded.scorer("independent").reader.build(task.queries[0], task.documents)[0].ids)
    cold, warm = (found[name].by(plan.clock) for name in _APART)
    return {
        "documents": count,
        "tokens": tokens,
        "sides": {name: _side(found, name, tokens, plan, None) for name in _APART},
        "warm_of_cold": ratio(warm, cold),
    }


def expected_share(deepest: int, layers: int) -> float:
    """The most that joint scoring should take of a plain forward pass."""
    return deepest / layers * 1.05 + 0.03
