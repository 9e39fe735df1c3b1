"""Head maps, in the terminal and as PNG."""

from __future__ import annotations

import pytest

from qr_core import InputError
from qr_core.heads.maps import save_png, score_grid, terminal_map
from tests.unit.heads.sets import PAIRS, UNSCORED, scored


def test_maps(tmp_path):
    grid = score_grid(scored(PAIRS))
    assert grid.shape == (3, 4)
    assert grid[0, 0] == 1.0
    lines = terminal_map(scored(PAIRS)).plain.splitlines()
    assert lines[1].startswith("2 ")
    assert lines[3].startswith("0 █*█*")
    assert "·" in lines[1]
    assert terminal_map(UNSCORED).plain.count("*") == 2 + 1  # and the legend's
    save_png(UNSCORED, tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="cannot write"):
        save_png(UNSCORED, tmp_path / "absent" / "map.png")
