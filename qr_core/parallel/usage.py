"""Usage: how much memory this process has at most held: a CUDA device's where one is named, else resident memory."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import torch


def restart_peak(device: str) -> int | None:
    """Count `peak` anew from here, where the system can; returns the bytes in use now, or the peak where it cannot.

    Parameters
    ----------
    device : str
        `cpu`, `cuda`, `cuda:1`, ...; of all but CUDA the resident memory of this process is meant.
    """
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    return peak(device)


def peak(device: str) -> int | None:
    """Most bytes since `restart_peak`, or since the process began where that cannot count anew; None if not known."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(device))
    with suppress(OSError):
        return _status("VmHWM")
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def resident() -> int | None:
    """Resident memory of this process now, in bytes; None where the system has no /proc."""
    with suppress(OSError):
        return _status("VmRSS")
    return None


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
