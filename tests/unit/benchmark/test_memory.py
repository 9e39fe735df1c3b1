"""Memory: the peak of a variant."""

from __future__ import annotations

import pytest

from qr_core import QRHeadError
from qr_core.benchmark import memory
from qr_core.benchmark.task import task_of
from tests.unit.benchmark.small import SMALL


def test_memory_grows_with_what_a_variant_keeps():
    """In this process, without a fresh one: keys and values of a second query were there before."""
    plain = memory.peak_of(SMALL, task_of(40), "plain")
    second = memory.peak_of(SMALL, task_of(40), "second")
    kept = 40 * 100 * 2 * 2 * 64 * 4  # tokens, layers, keys and values, width, bytes
    assert plain > 0
    assert second > kept / 2


def test_peak_memory_of_a_fresh_process():
    found = memory.peak_memory(SMALL, task_of(2), ["joint"])
    assert found["joint"] >= 0


def test_a_process_that_ends_early_is_an_error():
    with pytest.raises(QRHeadError, match="ended early"):
        memory.peak_memory(SMALL, task_of(2), ["no such variant"])
