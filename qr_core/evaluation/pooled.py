"""Pooled: attention systems rank on a pool of workers instead of in this process; their journals are filled here.

A worker makes a system from the same settings, and works through queries as `runner.run` does, which also takes the
time there. Queries that share their documents go to one worker together. Knows nothing of metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby

from qr_core.errors import ModelLoadError
from qr_core.evaluation.answers.replies import Track
from qr_core.evaluation.journal import Journal
from qr_core.evaluation.lineup import Entry, Settings, attention_entry
from qr_core.evaluation.runner import Found, Handle, run
from qr_core.evaluation.work import Pool
from qr_core.parallel.pool import RETRIES, Workers, on_ray

Item = tuple[str, list[Pool]]
"""A system's name, and queries over the same documents."""


def rank_pooled(
    settings: Settings,
    workers: Workers,
    entries: Sequence[Entry],
    pools: Sequence[Pool],
    journals: Mapping[str, Journal],
    track: Track,
) -> dict[str, Found]:
    """Let the attention systems among `entries` do what their journals do not have yet.

    Returns
    -------
    dict of str to Found
        By the name of the system; the others are not in it.
    """
    names = [entry.name for entry in entries if entry.scorer is not None]
    found = {name: Found(journals[name].records) for name in names}
    items = [item for name in names for item in _waiting(name, pools, journals[name])]
    waiting = dict.fromkeys((name, pool.query_id) for name, group in items for pool in group)
    if items:
        with track("on Ray", len(waiting)) as step:
            for number, done in on_ray(items, partial(_ranking, settings), workers, settings.device):
                name, group = items[number]
                for query_id, record in done.records.items():
                    journals[name].add(query_id, record)
                found[name].failures |= done.failures
                found[name].untried += done.untried
                found[name].missing = found[name].missing or done.missing
                for pool in group:
                    del waiting[name, pool.query_id]
                    step()
    for name, query_id in waiting:
        found[name].failures[query_id] = f"its worker died {RETRIES + 1} times"
    return found


def _waiting(name: str, pools: Sequence[Pool], journal: Journal) -> list[Item]:
    """Without the collections, which no attention system reads."""
    groups = (
        [replace(pool, collection=()) for pool in group if pool.query_id not in journal.records]
        for _, group in groupby(pools, key=lambda pool: id(pool.documents))
    )
    return [(name, group) for group in groups if group]


def _ranking(settings: Settings) -> Callable[[Item], Found]:
    """A worker's function; it keeps the systems that it made."""
    made: dict[str, Handle] = {}

    def rank(item: Item) -> Found:
        name, pools = item
        try:
            if name not in made:
                made[name] = attention_entry(name, settings).handle()
            return run(made[name], pools, Journal(None, {}))
        except ModelLoadError as error:  # costs this system, and no other
            return Found(missing=str(error))

    return rank
