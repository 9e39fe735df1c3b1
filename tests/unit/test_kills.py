"""Long runs that are killed, or whose disk is full, at any moment: what they leave in the end has the same bytes."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import time

import pytest

from qr_core import QRHeadError
from qr_core.files import replace
from tests.unit.resumable import KINDS

MOST_WRITES = 100
ROUNDS = 12


class Full:
    """A disk that takes `room` more writes; the first that it does not take is left half done."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.move, self.write = os.replace, replace._written

    def _next(self) -> bool:
        self.room -= 1
        return self.room < 0

    def moved(self, source, target):
        if self._next():
            raise OSError(errno.ENOSPC, "No space left on device")
        self.move(source, target)

    def written(self, file, raw):
        if self._next():
            self.write(file, raw[: len(raw) // 2])
            file.flush()
            raise OSError(errno.ENOSPC, "No space left on device")
        self.write(file, raw)


@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_that_is_full_at_any_write(tmp_path, monkeypatch, capsys, kind):
    """One clear error, or none where a file is not needed; then the same call ends as if nothing had happened."""
    work = KINDS[kind]
    (tmp_path / "whole").mkdir()
    work.run(tmp_path / "whole")
    expected = work.left(tmp_path / "whole")
    for room in range(0, MOST_WRITES, work.step):
        folder = tmp_path / f"room{room}"
        folder.mkdir()
        disk = Full(room)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", disk.moved)
            patch.setattr(replace, "_written", disk.written)
            try:
                work.run(folder)
            except (QRHeadError, OSError) as error:
                told = f"{error}{capsys.readouterr().err}"
                assert "cannot write" in told or "status 2" in told
                assert "Traceback" not in told
        work.run(folder)
        assert work.left(folder) == expected
        if disk.room >= 0:
            break
    assert 4 < room < MOST_WRITES - 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_kills_at_random_moments(tmp_path, kind):
    """SIGKILL, again and again, then once to the end. The moments come from a seed and the work's own length."""
    context = multiprocessing.get_context("forkserver")  # children that have the imports behind them
    context.set_forkserver_preload(["tests.unit.resumable"])
    work, moments = KINDS[kind], random.Random(kind)

    def start(folder):
        process = context.Process(target=work.run, args=(folder,))
        process.start()
        return process

    def finished(folder):
        process = start(folder)
        process.join(120)
        assert process.exitcode == 0

    for name in ("first", "whole"):  # the first one also waits for the imports
        (tmp_path / name).mkdir()
        began = time.monotonic()
        finished(tmp_path / name)
    length = time.monotonic() - began
    expected, killed = work.left(tmp_path / "whole"), 0
    for number in range(ROUNDS):
        folder = tmp_path / str(number)
        folder.mkdir()
        for _ in range(3):
            process = start(folder)
            process.join(moments.uniform(0, 1.1 * length))
            killed += process.is_alive()
            process.kill()
            process.join()
        finished(folder)
        left = work.left(folder)
        drafts = {name for name in left if name.endswith(replace.DRAFT)}
        assert {name: content for name, content in left.items() if name not in drafts} == expected
        assert not drafts or kind == "documents"  # whose folder is shared: what is half done there may be another's
    assert killed > ROUNDS // 2
