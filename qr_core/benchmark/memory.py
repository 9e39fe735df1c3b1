"""Memory: the peak of each variant above the loaded model, each in a fresh process that runs it once.

On CUDA it is what torch's allocator handed out, elsewhere resident memory. What a variant finds prepared (keys and
values that were encoded before) counts; weights, and what a first short run leaves behind, do not.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch

from qr_core.benchmark.plan import Subject
from qr_core.benchmark.subject import Loaded
from qr_core.benchmark.task import Task, task_of
from qr_core.benchmark.variants import VARIANTS, Case
from qr_core.errors import MemoryLimitError
from qr_core.parallel.usage import peak, restart_peak

SHORT = 2
"""Documents of the run that comes before the measured one."""


def peak_memory(
    subject: Subject, task: Task, names: Sequence[str], tell: Callable[[str], None] | None = None
) -> dict[str, int]:
    """Bytes above the loaded model, for each variant named.

    Variants that need no more than the layers up to the deepest selected head load no more.

    Raises
    ------
    MemoryLimitError
        When such a process ends early.
    """
    processes = _processes()
    found = {}
    for name in names:
        if tell:
            tell(f"memory of {name}")
        receive, send = processes.Pipe(duplex=False)
        child = processes.Process(target=_measure, args=(subject, task, name, torch.get_num_threads(), send))
        child.start()
        send.close()
        try:
            found[name] = int(receive.recv())
        except EOFError as error:
            raise MemoryLimitError(
                f"the process that measured the memory of {name!r} ended early: memory may be short; "
                "pass --no-memory, or a shorter length"
            ) from error
        finally:
            child.join()
    return found


def _processes() -> Any:
    """Makes processes that have this module and nothing more; where it can, without importing it for each of them."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([__name__])
    return server


def _measure(subject: Subject, task: Task, name: str, threads: int, answer: Any) -> None:
    """In a fresh process: run one variant once and send its peak."""
    torch.set_num_threads(threads)
    answer.send(peak_of(subject, task, name))


def peak_of(subject: Subject, task: Task, name: str) -> int:
    """Peak of one variant in this process, in bytes above the loaded model."""
    loaded, variant = Loaded(subject), VARIANTS[name]
    case, short = Case(loaded, task), Case(loaded, task_of(SHORT))
    if variant.whole:
        loaded.whole()
    elif not variant.own_model:
        loaded.partial()
    variant.run(short, variant.before(short))
    del short
    if variant.own_model:  # which is what is prepared
        given = variant.before(case)
        before = _restart(loaded.device)
    else:
        before = _restart(loaded.device)
        given = variant.before(case)
        _restart(loaded.device)
    variant.run(case, given)
    return (peak(loaded.device) or 0) - before


def _restart(device: str) -> int:
    """Free what nobody holds; returns the bytes in use now, from which the peak counts anew."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    else:
        _trim()
    return restart_peak(device) or 0


def _trim() -> None:
    """Let the allocator give back what is free (glibc)."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
