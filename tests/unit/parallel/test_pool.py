"""The pool of workers: room for them. What it does on a cluster is in tests/distributed."""

from __future__ import annotations

import pytest

from qr_core import InputError
from qr_core.parallel import pool as ray_pool
from qr_core.parallel.pool import Workers


def test_room_for_workers():
    room = ray_pool._room
    assert room({"CPU": 16, "GPU": 2}, None, Workers(), 100) == (1, 2)
    assert room({"CPU": 16}, None, Workers(cpus=4), 100) == (0, 4)
    assert room({"CPU": 16, "GPU": 2}, "cpu", Workers(), 3) == (0, 3)
    assert room({"CPU": 1}, None, Workers(count=5), 3) == (0, 5)
    with pytest.raises(InputError, match="no room for a worker of 8 CPUs"):
        room({"CPU": 4}, None, Workers(cpus=8), 3)
