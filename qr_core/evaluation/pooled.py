"""Pooled: attention systems rank on a pool of workers instead of in this process; their journals are filled here.

A worker makes a system from the same options, and works through queries as `runner.run` does, which also takes the
time there. Queries that share their documents go to one worker together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby

from qr_core.errors import ModelLoadError
from qr_core.evaluation.answers.replies import Track
from qr_core.evaluation.journal import Journal
from qr_core.evaluation.lineup import entry_of
from qr_core.evaluation.options import EvaluationOptions
from qr_core.evaluation.runner import Found, run
from qr_core.evaluation.systems.entry import Entry
from qr_core.evaluation.work import CandidateSet, Handle
from qr_core.parallel.pool import RETRIES, Workers, on_ray

Item = tuple[str, str, list[CandidateSet]]
"""A system's kind and name, and queries over the same documents."""


def rank_pooled(
    options: EvaluationOptions,
    workers: Workers,
    entries: Sequence[Entry],
    sets: Sequence[CandidateSet],
    journals: Mapping[str, Journal],
    track: Track,
) -> dict[str, Found]:
    """Let the attention systems among `entries` do what their journals do not have yet.

    Returns
    -------
    dict of str to Found
        By the name of the system; the others are not in it.
    """
    scored = [entry for entry in entries if entry.scorer is not None]
    found = {entry.name: Found(journals[entry.name].records) for entry in scored}
    items = [item for entry in scored for item in _waiting(entry, sets, journals[entry.name])]
    waiting = dict.fromkeys((name, candidates.query_id) for _, name, group in items for candidates in group)
    if items:
        with track("on Ray", len(waiting)) as step:
            for number, done in on_ray(items, partial(_ranking, options), workers, options.scorer.device):
                _, name, group = items[number]
                for query_id, record in done.records.items():
                    journals[name].add(query_id, record)
                found[name].failures |= done.failures
                found[name].untried += done.untried
                found[name].missing = found[name].missing or done.missing
                for candidates in group:
                    del waiting[name, candidates.query_id]
                    step()
    for name, query_id in waiting:
        found[name].failures[query_id] = f"its worker died {RETRIES + 1} times"
    return found


def _waiting(entry: Entry, sets: Sequence[CandidateSet], journal: Journal) -> list[Item]:
    """Without the collections, which no attention system reads."""
    groups = (
        [replace(candidates, collection=()) for candidates in group if candidates.query_id not in journal.records]
        for _, group in groupby(sets, key=lambda candidates: id(candidates.documents))
    )
    return [(entry.kind, entry.name, group) for group in groups if group]


def _ranking(options: EvaluationOptions) -> Callable[[Item], Found]:
    """A worker's function; it keeps the systems that it made."""
    made: dict[str, Handle] = {}

    def rank(item: Item) -> Found:
        kind, name, sets = item
        try:
            if name not in made:
                made[name] = entry_of(kind, name, options).handle()
            return run(made[name], sets, Journal(None, {}))
        except ModelLoadError as error:  # costs this system, and no other
            return Found(missing=str(error))

    return rank
