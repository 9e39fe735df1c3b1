"""Run: measure a subject over prompt lengths, depths and numbers of documents; the report is plain data."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import transformers

from qr_core.benchmark.memory import peak_memory
from qr_core.benchmark.plan import Plan, Subject
from qr_core.benchmark.subject import Loaded, spread
from qr_core.benchmark.task import Task, task_of, task_of_tokens
from qr_core.benchmark.timing import Measured, agreement, exponent, ratio, summary, time_variants
from qr_core.benchmark.variants import COLD, MANY, VARIANTS, WARM, Case, chosen, prompt_tokens
from qr_core.errors import InputError
from qr_core.types import Layout
from qr_core.version import __version__

Tell = Callable[[str], None]
SHORTEST = 256
"""Tokens of a prompt: one document and the query have room."""
RATIOS = (
    ("joint / plain", "joint", "plain"),
    ("published / joint", "published", "joint"),
    ("second / joint", "second", "joint"),
    ("independent warm / cold", "independent-warm", "independent-cold"),
    ("independent cold / joint", "independent-cold", "joint"),
    ("late warm / cold", "late-warm", "late-cold"),
    ("late cold / cross-encoder", "late-cold", "cross-encoder"),
    ("late second / cross-encoder", "late-second", "cross-encoder"),
)
"""What is said of two variants, and which they are; `_ratios_of_many` adds to these."""
DEEP = ("plain", "published", "joint")
"""Variants at each depth."""
COUNTED: dict[Layout, tuple[str, str]] = {
    "joint": ("independent-cold", "independent-warm"),
    "independent": ("independent-cold", "independent-warm"),
    "late": ("late-cold", "late-warm"),
}
"""Variants at each number of documents, by the subject's layout."""
GROWING = (*DEEP, *COUNTED["independent"], *COUNTED["late"])
"""Variants of which it is said how their time grows with length."""


def run(subject: Subject, plan: Plan, tell: Tell = lambda _: None) -> dict[str, Any]:
    """Measure everything that a plan asks for.

    Raises
    ------
    InputError
        When a length, a depth, a number of documents or a variant does not exist, before anything is measured.
    QRHeadError
        When the model cannot be loaded or read.
    """
    loaded = Loaded(subject)
    for depth in plan.depths:
        spread(loaded.name, loaded.shape, depth)
    if min(plan.lengths, default=0 if plan.depths else SHORTEST) < SHORTEST or min(plan.documents, default=1) < 1:
        raise InputError(f"a prompt has at least {SHORTEST} tokens, and there is at least one document")
    names = chosen(plan.variants, loaded)
    if plan.depths and loaded.sees_ahead:
        raise InputError(f"{loaded.name} is an encoder, of which no depths are compared: leave --depths out")
    ready = dict.fromkeys((*names, *(DEEP if plan.depths else ()), *(COUNTED[loaded.layout] if plan.documents else ())))
    if any(VARIANTS[name].whole for name in ready):
        loaded.whole()  # before any variant that would do with fewer layers: loading is not measured
    time_variants(Case(loaded, task_of(2)), tuple(ready), 1)

    queries = max(VARIANTS[name].queries for name in names) + 1
    tasks = [task_of_tokens(n, lambda task: prompt_tokens(loaded, task), queries) for n in plan.lengths]
    lengths = [_at_length(loaded, task, names, plan, tell) for task in tasks]
    counts = [_at_count(Case(loaded, task_of(count)), plan, tell) for count in plan.documents]
    return {
        "conditions": _conditions(loaded, plan),
        "lengths": lengths,
        "length_exponents": _exponents(lengths, "tokens", [name for name in GROWING if name in names]),
        "depths": [_at_depth(Case(loaded.with_deepest(depth), tasks[0]), plan, tell) for depth in plan.depths],
        "documents": counts,
        "document_exponents": _exponents(counts, "documents", COUNTED[loaded.layout] if counts else ()),
    }


def _exponents(entries: list[dict[str, Any]], size: str, names: Iterable[str]) -> dict[str, float | None]:
    """For each variant, the power of its size that time grows with."""
    sizes = [entry[size] for entry in entries]
    return {
        name: exponent(sizes, [entry["variants"][name]["seconds"]["median"] for entry in entries]) for name in names
    }


def _conditions(loaded: Loaded, plan: Plan) -> dict[str, Any]:
    cuda = loaded.device.startswith("cuda")
    return {
        "model": loaded.name,
        "layout": loaded.layout,
        "layers": loaded.shape.layers,
        "heads": loaded.shape.heads,
        "key_heads": loaded.shape.kv_heads,
        "hidden": loaded.shape.hidden,
        "deepest": loaded.heads.deepest,
        "heads_read": sum(len(chosen) for chosen in loaded.heads.by_layer().values()),
        "dtype": str(loaded.partial().dtype).removeprefix("torch."),
        "device": loaded.device,
        "device_name": torch.cuda.get_device_name(loaded.device) if cuda else platform.machine(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "repeats": plan.repeats,
        "clock": plan.clock,
        "cross_encoder": loaded.subject.cross_encoder or "6 layers, hidden size 384, random weights",
        "versions": {"qrhead": __version__, "torch": torch.__version__, "transformers": transformers.__version__},
    }


def _at_length(loaded: Loaded, task: Task, names: Sequence[str], plan: Plan, tell: Tell) -> dict[str, Any]:
    tokens = prompt_tokens(loaded, task)
    found = time_variants(Case(loaded, task), names, plan.repeats, lambda what: tell(f"{tokens} tokens, {what}"))
    memory = peak_memory(loaded.subject, task, names, tell) if plan.memory else {}
    ratios = {
        said: ratio(found[over].by(plan.clock), found[under].by(plan.clock))
        for said, over, under in (*RATIOS, *_ratios_of_many(loaded.layout))
        if over in found and under in found
    }
    if "plain" in memory and "joint" in memory:
        ratios["peak memory, joint / plain"] = memory["joint"] / max(1, memory["plain"])
    variants = {name: _variant(found, name, tokens, plan, memory.get(name)) for name in names}
    return {
        "tokens": tokens,
        "documents": len(task.documents),
        "variants": variants,
        "sides": variants,  # as they were called before
        "ratios": ratios,
        "agreement": agreement(found),
    }


def _ratios_of_many(layout: Layout) -> list[tuple[str, str, str]]:
    """Of a hundred queries to one, in the same layout and with as much done before."""
    ratios = [
        (f"{MANY} queries / 1, nothing encoded before", "many", COLD[layout]),
        (f"{MANY} queries / 1, documents encoded before", "many-warm", WARM[layout]),
    ]
    return [(f"{MANY} queries / joint", "many", "joint"), *ratios] if layout == "joint" else ratios


def _variant(found: dict[str, Measured], name: str, tokens: int, plan: Plan, peak: int | None) -> dict[str, Any]:
    measured, variant = found[name], VARIANTS[name]
    seconds = measured.by(plan.clock)
    times = summary(seconds)
    return {
        "about": variant.about,
        "seconds": times,
        "wall": measured.wall,
        "cpu": measured.cpu,
        "tokens_per_second": tokens * variant.queries / times["median"],
        "of_plain": ratio(seconds, found["plain"].by(plan.clock)) if "plain" in found else None,
        "forward_passes": None if variant.own_model else measured.passes,
        "held_bytes": measured.held,
        "peak_bytes": peak,
    }


def _at_depth(case: Case, plan: Plan, tell: Tell) -> dict[str, Any]:
    depth = case.loaded.heads.deepest
    found = time_variants(case, DEEP, plan.repeats, lambda what: tell(f"deepest layer {depth}, {what}"))
    plain, published, joint = (found[name].by(plan.clock) for name in DEEP)
    return {
        "deepest": depth,
        "joint_of_plain": ratio(joint, plain),
        "published_of_plain": ratio(published, plain),
        "published_of_joint": ratio(published, joint),
        "expected": expected_share(depth, case.loaded.shape.layers),
        "seconds": {name: summary(found[name].by(plan.clock)) for name in DEEP},
    }


def _at_count(case: Case, plan: Plan, tell: Tell) -> dict[str, Any]:
    count = len(case.task.documents)
    names = COUNTED[case.loaded.layout]
    found = time_variants(case, names, plan.repeats, lambda what: tell(f"{count} documents, {what}"))
    layout: Layout = "late" if case.loaded.layout == "late" else "independent"
    tokens = len(case.ranked(layout).prompt(case.first, case.task.documents).query.ids)
    cold, warm = (found[name].by(plan.clock) for name in names)
    variants = {name: _variant(found, name, tokens, plan, None) for name in names}
    return {
        "documents": count,
        "tokens": tokens,
        "variants": variants,
        "sides": variants,
        "warm_of_cold": ratio(warm, cold),
    }


def expected_share(deepest: int, layers: int) -> float:
    """The most that joint scoring should take of a plain forward pass."""
    return deepest / layers * 1.05 + 0.03
