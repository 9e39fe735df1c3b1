"""Memory: what runs in pieces runs again in smaller ones when memory is short, once, with a warning.

Knows nothing of models: a run is a function of how many rows it takes at a time.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeVar

import torch

from qr_core.errors import MemoryLimitError

T = TypeVar("T")

SMALLER = 4
"""The pieces of the second try are this many times smaller."""
_SAYINGS = ("out of memory", "can't allocate memory", "not enough memory")
"""What allocators say in a plain RuntimeError: those of CUDA and MPS, of Linux, and of Windows."""


def is_shortage(error: BaseException) -> bool:
    """Whether an error says that memory is short."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(saying in str(error) for saying in _SAYINGS)


def free_bytes(device: torch.device) -> int:
    """What a CUDA device can still hold, with what torch has taken of it but does not use; 0 for other devices."""
    if device.type != "cuda":
        return 0
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + unused


def in_pieces(
    run: Callable[[int], T],
    rows: int,
    smallest: int,
    what: str,
    make_room: Callable[[], None] | None = None,
    most_again: int | None = None,
) -> T:
    """`run(rows)`, and once more when memory is short, with fewer rows if there can be fewer.

    What the first try held is let go before the second.

    Parameters
    ----------
    rows, smallest : int
        Rows to run at a time, and the fewest worth trying.
    what : str
        Follows the number of rows in messages.
    make_room : callable, optional
        Called before the second try, to let go of what others hold.
    most_again : int, optional
        Most rows of the second try, where a share of `rows` may be too many.

    Raises
    ------
    MemoryLimitError
        When memory is short again.
    """
    fewer = min(rows, max(smallest, min(rows // SMALLER, most_again or rows)))
    try:
        return run(rows)
    except Exception as error:
        if not is_shortage(error):
            raise
    if make_room is not None:
        make_room()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    warnings.warn(
        f"memory is short when running {rows} {what} at a time: trying again, {fewer} at a time", stacklevel=2
    )
    try:
        return run(fewer)
    except Exception as error:
        if not is_shortage(error):
            raise
        raise MemoryLimitError(
            f"not enough memory, even when running {fewer} {what} at a time: set max_prompt_tokens to score in "
            "segments, choose heads in lower layers, or load a smaller dtype"
        ) from error.with_traceback(None)  # its frames hold what was made so far
