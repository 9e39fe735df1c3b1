"""The pool of workers: room for them. What it does on a cluster is in tests/distributed."""

from __future__ import annotations

import importlib.metadata
import logging
import sys
import types

import pytest

from qr_core import InputError
from qr_core.errors import StoppedError
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


@pytest.fixture
def started(monkeypatch, tmp_path):
    """What Ray is started with, without starting it."""
    calls = []

    def init(**given):
        calls.append(given | {"token": ray_pool.os.environ.get("RAY_AUTH_TOKEN")})
        raise ConnectionError("not started")

    exceptions = types.SimpleNamespace(RayError=OSError)
    ray = types.SimpleNamespace(is_initialized=lambda: False, init=init, exceptions=exceptions)
    monkeypatch.setattr(ray_pool, "_imported", lambda: ray)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.60.0")
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    monkeypatch.setattr(ray_pool.os, "environ", {"RAY_TMPDIR": str(tmp_path)})

    def start(address=None):
        with pytest.raises(StoppedError):
            list(ray_pool.on_ray([1], lambda: lambda item: item, Workers(address=address)))
        return calls[-1]

    return start


@pytest.mark.parametrize("address", [None, "local"])
def test_a_cluster_of_ones_own_asks_for_a_private_token(started, caplog, address):
    call = started(address)
    assert len(call["token"]) == 64
    assert call["include_dashboard"] is False
    assert ray_pool.os.environ["RAY_AUTH_MODE"] == "token"
    assert not caplog.records
    assert started(address)["token"] == call["token"]  # which a second run of this process holds as well


@pytest.mark.parametrize("where", ["address", "RAY_ADDRESS", "running"])
def test_a_cluster_of_others_keeps_its_own_ways(started, tmp_path, where):
    if where == "RAY_ADDRESS":
        ray_pool.os.environ["RAY_ADDRESS"] = "10.0.0.1:6379"
    if where == "running":
        (tmp_path / "ray").mkdir()
        (tmp_path / "ray" / "ray_current_cluster").write_text("10.0.0.1:6379")
    call = started("10.0.0.1:6379" if where == "address" else None)
    assert call["token"] is None
    assert "include_dashboard" not in call
    assert "RAY_AUTH_MODE" not in ray_pool.os.environ


def test_one_line_says_that_a_cluster_has_no_token(started, caplog, monkeypatch):
    caplog.set_level(logging.WARNING)
    ray_pool.os.environ["RAY_AUTH_MODE"] = "disabled"
    assert started()["token"] is None
    del ray_pool.os.environ["RAY_AUTH_MODE"]
    monkeypatch.setitem(sys.modules, "ray", types.ModuleType("ray"))  # imported before, when nothing was said
    assert started()["token"] is None
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.51.1")
    ray_pool.os.environ["RAY_AUTH_MODE"] = "token"
    assert started()["token"] is None
    assert [record.message.count("\n") for record in caplog.records] == [0, 0, 0]
    assert all("all interfaces" in record.message for record in caplog.records)
