"""Line-up: which systems take part, each with what the record says of it and how it is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from qr_core.errors import InputError, ModelLoadError
from qr_core.evaluation.options import EvaluationOptions, flag
from qr_core.evaluation.systems import attention
from qr_core.evaluation.systems.bm25 import bm25_entries
from qr_core.evaluation.systems.cross_encoder import cross_encoder_entries
from qr_core.evaluation.systems.dense import dense_entries
from qr_core.evaluation.systems.entry import Entry, System
from qr_core.evaluation.systems.full_context import full_context_entries
from qr_core.evaluation.systems.given import given_entries
from qr_core.evaluation.systems.orders import PREFIX
from qr_core.evaluation.systems.rankgpt import rankgpt_entries
from qr_core.registry import Registry

SYSTEMS: Registry[System] = Registry("system")
"""What can take part, by the names that `--systems` takes."""
SYSTEMS.add("qr", System(attention.qr_entries))
SYSTEMS.add("all", System(attention.all_entries))
SYSTEMS.add("random-heads", System(attention.random_entries))
SYSTEMS.add("retrieval-heads", System(attention.retrieval_entries, "retrieval_heads", "a head set"))
SYSTEMS.add("given", System(given_entries))
SYSTEMS.add("bm25", System(bm25_entries))
SYSTEMS.add("dense", System(dense_entries, "dense_model", "the name or folder of a sentence-transformers model"))
SYSTEMS.add("cross-encoder", System(cross_encoder_entries, "cross_encoder_model", "the name or folder of one"))
SYSTEMS.add(
    "rankgpt",
    System(rankgpt_entries, "ranker", "a chat model's name or folder, or an OpenAI-compatible address"),
)
SYSTEMS.add("full-context", System(full_context_entries, "generator", "the model that answers from every document"))

Make = Callable[[], list[Entry]]


def line_up(options: EvaluationOptions) -> list[Entry]:
    """The systems that the options name, and `qr` once more for each number of segments and for each order.

    A system whose model cannot be loaded is listed with the reason.

    Raises
    ------
    InputError
        When a name is not known, or a system lacks the option it needs.
    HeadSetError
        When heads do not belong to the model.
    """
    entries: list[Entry] = []
    for kind, make in makers(options).items():
        try:
            entries += [replace(entry, kind=kind) for entry in make()]
        except ModelLoadError as error:
            entries.append(Entry(kind, missing=str(error), kind=kind))
    return entries


def makers(options: EvaluationOptions) -> dict[str, Make]:
    """What makes each kind of entry that takes part, by name.

    Raises
    ------
    InputError
        When a name is not known, or a system lacks the option it needs.
    """
    if not options.systems.systems:
        raise InputError("--systems names none")
    found: dict[str, Make] = {}
    for name in options.systems.systems:
        system = SYSTEMS[name]
        if system.needs and options.value(system.needs) is None:
            raise InputError(f"the system {name} needs {flag(system.needs)}, {system.because}")
        found[name] = partial(system.entries, options)
    for count in options.systems.segments:
        name = f"qr, {count} segment{'s' if count > 1 else ''}"
        found[name] = partial(attention.segments_entries, name, options, count)
    for number in range(1, options.systems.orders + 1):
        found[f"{PREFIX}{number}"] = partial(attention.order_entries, number, options)
    return found


def entry_of(kind: str, name: str, options: EvaluationOptions) -> Entry:
    """The entry that `line_up` makes of this kind and name.

    Raises
    ------
    InputError
        When there is none.
    ModelLoadError
        When its model cannot be loaded.
    """
    made = makers(options)
    entries = {entry.name: entry for entry in made[kind]()} if kind in made else {}
    if name not in entries:
        raise InputError(f"no system {name!r} of the kind {kind!r} takes part: use one of {', '.join(entries or made)}")
    return replace(entries[name], kind=kind)
