"""Head maps: a detection's head scores as a picture of layers by heads, in the terminal and as PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.style import Style
from rich.text import Text

from qr_core.display import figures
from qr_core.files.replace import write_named
from qr_core.heads.sets import HeadSet

DARK, BRIGHT = (70, 80, 130), (255, 214, 92)
"""Colours of the lowest and highest score; they differ in lightness, so that colour-blind readers can tell them too."""

SHADES = "·░▒▓█"


def score_grid(heads: HeadSet) -> NDArray[np.float64]:
    """Scores as an array of shape (layers, heads): of all heads that were judged, else of the listed ones.

    Heads without a score are NaN; listed heads whose scores were not published count by rank, the best as 1.
    """
    grid = np.full((heads.config.layers, heads.config.heads), np.nan)
    judged = heads.provenance.scores if heads.provenance is not None else ()
    for place, (layer, head, score) in enumerate(judged or heads.heads):
        grid[layer, head] = 1 - place / len(heads.heads) if score is None else score
    return grid


def _scaled(grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """From 0 for the lowest to 1 for the highest score."""
    if np.isnan(grid).all():
        return grid
    low, high = np.nanmin(grid), np.nanmax(grid)
    return (grid - low) / (high - low) if high > low else grid * 0 + 1


def terminal_map(heads: HeadSet) -> Text:
    """Two characters a head, one line a layer: brighter and denser is higher, `*` marks the heads of the set."""
    shares = _scaled(score_grid(heads))
    chosen = set(heads.pairs())
    width = len(str(len(shares) - 1))
    text = Text(f"layers up, heads 0 to {shares.shape[1] - 1} across; * selected, - not judged\n")
    for layer in range(len(shares) - 1, -1, -1):
        text.append(f"{layer:{width}} ")
        for head, share in enumerate(shares[layer]):
            if np.isnan(share):
                text.append("- ", Style(dim=True))
                continue
            red, green, blue = (round(a + (b - a) * share) for a, b in zip(DARK, BRIGHT, strict=True))
            shade = SHADES[min(len(SHADES) - 1, int(share * len(SHADES)))]
            mark = "*" if (layer, head) in chosen else " "
            text.append(shade + mark, Style(color=f"rgb({red},{green},{blue})"))
        text.append("\n")
    return text


def save_png(heads: HeadSet, path: Path) -> None:
    """Write `png` to a file.

    Raises
    ------
    InputError
        When matplotlib is missing, or the file cannot be written.
    """
    write_named(path, png(heads))


def png(heads: HeadSet) -> bytes:
    """The map drawn with matplotlib; rings mark the heads of the set.

    Raises
    ------
    InputError
        When matplotlib is missing.
    """
    grid = score_grid(heads)
    layers, count = grid.shape
    drawn = figures.figure(2 + min(20, 0.28 * count), 1.6 + min(24, 0.28 * layers))
    from matplotlib.ticker import MaxNLocator

    axes = drawn.add_subplot()
    image = axes.imshow(grid, origin="lower", aspect="auto", cmap="cividis", interpolation="nearest")
    listed = heads.pairs()
    rows, columns = [layer for layer, _ in listed], [head for _, head in listed]
    axes.scatter(columns, rows, s=36, facecolors="none", edgecolors="red", linewidths=1)
    axes.set_xlabel("head")
    axes.set_ylabel("layer")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(f"{heads.model}\n{heads.criterion}; {len(listed)} heads ringed", fontsize=10)
    drawn.colorbar(image, ax=axes, label="score")
    return figures.png(drawn)
