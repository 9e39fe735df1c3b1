"""Tensor files: equal bytes for equal content, and nothing that is damaged."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save

from qr_core.files.tensors import packed, unpacked

TENSORS = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.ones(2, dtype=torch.bfloat16), "none": torch.zeros(0)}


def test_equal_content_gives_equal_bytes():
    """Safetensors alone writes what is said about a file in an order of its own each time."""
    about = {name: name for name in "zyxwv"}
    assert len({packed(TENSORS, dict(sorted(about.items(), reverse=n % 2 == 0))) for n in range(10)}) == 1


def test_what_is_written_is_read():
    tensors, about = unpacked(packed(TENSORS, {"key": "\u00fc\ud800"}))
    assert about == {"key": "\u00fc\ud800"}
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


WHOLE = packed(TENSORS, {"key": "k"})
DAMAGE = {
    "bit": WHOLE[:-3] + bytes([WHOLE[-3] ^ 1]) + WHOLE[-2:],
    "short": WHOLE[:-3],
    "long": WHOLE + b"\0",
    "nothing": b"",
    "length": (2**60).to_bytes(8, "little") + WHOLE[8:],
    "no note": save(TENSORS),
    "another note": save(TENSORS, {"about": "[1]"}),
    "no checksum": save(TENSORS, {"about": "{}"}),
    "deep": (10**5).to_bytes(8, "little") + b"[" * 10**5,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_no_file(damage):
    with pytest.raises(ValueError, match=r"not a file of this kind|damaged"):
        unpacked(DAMAGE[damage])
