"""Head maps: a detection's head scores as a picture of layers by heads, in the terminal and as PNG; two sets compared.

Knows nothing of how scores came about.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.style import Style
from rich.text import Text

from qr_core.errors import HeadSetError, InputError
from qr_core.heads.sets import HeadSet

DARK, BRIGHT = (70, 80, 130), (255, 214, 92)
"""Colours of the lowest and highest score; they differ in lightness, so colour-blind readers see them apart."""


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
    chosen = {(layer, head) for layer, head, _ in heads.heads}
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
    drawn = png(heads)
    try:
        path.write_bytes(drawn)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def matplotlib_figure() -> Any:
    """Matplotlib's class of figures, which needs no display.

    Raises
    ------
    InputError
        When matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise InputError("matplotlib is not installed: pip install 'qrhead[eval]'") from error
    return Figure


def png(heads: HeadSet) -> bytes:
    """The map drawn with matplotlib; rings mark the heads of the set.

    Raises
    ------
    InputError
        When matplotlib is missing.
    """
    figure_type = matplotlib_figure()
    from matplotlib.ticker import MaxNLocator

    grid = score_grid(heads)
    layers, count = grid.shape
    figure = figure_type(figsize=(2 + min(20, 0.28 * count), 1.6 + min(24, 0.28 * layers)), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(grid, origin="lower", aspect="auto", cmap="cividis", interpolation="nearest")
    listed = [(layer, head) for layer, head, _ in heads.heads]
    axes.scatter(
        [h for _, h in listed], [n for n, _ in listed], s=36, facecolors="none", edgecolors="red", linewidths=1
    )
    axes.set_xlabel("head")
    axes.set_ylabel("layer")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(f"{heads.model}\n{heads.criterion}; {len(set(listed))} heads ringed", fontsize=10)
    figure.colorbar(image, ax=axes, label="score")
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=120, format="png")
    return drawn.getvalue()


@dataclass(frozen=True)
class Comparison:
    """Two head sets of one model.

    Attributes
    ----------
    shared : tuple of (layer, head)
        In both.
    of_first, of_second : float
        Their share of each set.
    by_chance : float
        Expected share of the first set if the second were drawn at random.
    rank_correlation : float or None
        Spearman's, over all heads that both judged; None where one did not keep all scores.
    """

    shared: tuple[tuple[int, int], ...]
    of_first: float
    of_second: float
    by_chance: float
    rank_correlation: float | None


def compare(first: HeadSet, second: HeadSet) -> Comparison:
    """Overlap of two sets, and how alike they rank all heads.

    Raises
    ------
    HeadSetError
        When they belong to models of different shapes.
    """
    if first.config != second.config:
        raise HeadSetError(f"the sets are for models of different shapes: {first.model} and {second.model}")
    one, other = ({(layer, head) for layer, head, _ in found.heads} for found in (first, second))
    shared = tuple(sorted(one & other))
    grids = [score_grid(found).ravel() for found in (first, second) if found.provenance and found.provenance.scores]
    correlation = None
    if len(grids) == 2:
        both = ~np.isnan(grids[0]) & ~np.isnan(grids[1])
        ranks = [_ranks(grid[both]) for grid in grids]
        if both.sum() > 1 and all(rank.std() > 0 for rank in ranks):
            correlation = float(np.corrcoef(ranks[0], ranks[1])[0, 1])
    total = first.config.layers * first.config.heads
    return Comparison(shared, len(shared) / len(one), len(shared) / len(other), len(other) / total, correlation)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 0, equal values sharing their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    middles: NDArray[np.float64] = ends - (counts + 1) / 2
    return middles[inverse]
