"""Tasks: documents and queries, the same ones every time."""

from __future__ import annotations

from qr_core.benchmark.task import NEW_SHARE, task_of, task_of_tokens
from qr_core.benchmark.variants import prompt_tokens


def test_tasks(loaded):
    task = task_of(20, queries=3)
    assert task == task_of(20, queries=3)
    assert len(set(task.queries)) == 3
    shared = set(task.documents) & set(task.combination)
    assert len(task.combination) == len(task.documents) == 20
    assert len(shared) == 20 - round(20 * NEW_SHARE)
    assert all(len(document.text.split()) >= 100 for document in task.documents)
    sized = task_of_tokens(900, lambda task: prompt_tokens(loaded, task))
    assert prompt_tokens(loaded, sized) <= 900 < prompt_tokens(loaded, task_of(len(sized.documents) + 1))
