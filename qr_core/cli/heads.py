"""Command line of head sets: `qrhead heads list | show | map | compare | mask-test`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from qr_core.cli.common import FormatOption, HeadSetName, out, print_json
from qr_core.cli.flat import Only
from qr_core.cli.needles import MODEL, NeedleOptions, generator_of
from qr_core.display.tables import table
from qr_core.display.terminal import plain
from qr_core.display.wording import with_spread
from qr_core.errors import InputError
from qr_core.options import ScorerOptions


def heads_main(context: typer.Context) -> None:
    """Without a subcommand: list."""
    if context.invoked_subcommand is None:
        heads_list()


def heads_list(format_: FormatOption = "table") -> None:
    """List the head sets that ship with this package."""
    from qr_core.heads.sets import published

    if format_ == "json":
        rows = [
            {"name": n, "model": s.model, "heads": len(s.heads), "deepest": s.deepest, "default": s.default}
            for n, s in published().items()
        ]
        print_json({"head_sets": rows})
        return
    shown = table("name", "heads", "deepest layer", "default", "model", left=("default", "model"))
    shown.columns[0].no_wrap = True
    for name, found in published().items():
        depth = f"{found.deepest} of {found.config.layers - 1}"
        shown.add_row(name, str(len(found.heads)), depth, "yes" if found.default else "", found.model)
    out.print(shown)


def heads_show(name: HeadSetName) -> None:
    """Print one head set with its provenance, as JSON."""
    from qr_core.heads.sets import HeadSet

    print_json(HeadSet.load(name).model_dump(exclude_none=True))


def heads_map(
    name: HeadSetName, png: Annotated[Path | None, typer.Option(help="Write a picture instead of printing.")] = None
) -> None:
    """Draw a set's head scores, layers by heads."""
    from qr_core.heads.maps import save_png, terminal_map
    from qr_core.heads.sets import HeadSet

    heads = HeadSet.load(name)
    if png is None:
        out.print(terminal_map(heads))
    else:
        save_png(heads, png)


def heads_compare(
    first: HeadSetName,
    second: Annotated[str, typer.Argument(help="Another one of the same model.")],
    format_: FormatOption = "table",
) -> None:
    """Say how much two head sets have in common."""
    from qr_core.heads.comparison import compare
    from qr_core.heads.pairs import format_pairs
    from qr_core.heads.sets import HeadSet

    found = compare(HeadSet.load(first), HeadSet.load(second))
    if format_ == "json":
        print_json(asdict(found))
        return
    shared = format_pairs(found.shared, ", ") or "none"
    out.print(f"shared heads: {shared}", soft_wrap=True)
    out.print(
        f"{found.of_first:.0%} of the first, {found.of_second:.0%} of the second; {found.by_chance:.0%} by chance"
    )
    if found.rank_correlation is not None:
        out.print(f"rank correlation over all judged heads: {found.rank_correlation:.2f}")


def heads_mask_test(
    sets: Annotated[list[str], typer.Argument(help="Head sets to ablate, one after the other.")],
    model: Annotated[ScorerOptions, Only(*MODEL)],
    needles: NeedleOptions,
    draws: Annotated[int, typer.Option(help="Random sets of the same size.", min=1)] = 5,
    format_: FormatOption = "table",
) -> None:
    """Ask the model for needles with chosen heads ablated, and with random heads ablated."""
    from qr_core.detection.copying import causal_check
    from qr_core.detection.selection import Spread
    from qr_core.heads.parts import HeadShape
    from qr_core.heads.sets import HeadSet

    generator = generator_of(model)
    chosen = {}
    for name in sets:
        heads = HeadSet.load(name)
        if heads.config != HeadShape.of(generator.model.config):
            raise InputError(f"head set {name} is for a model of another shape ({heads.model})")
        chosen[name] = heads.pairs()
    cases = needles.cases(generator)
    results = causal_check(generator, cases, chosen, draws)
    if format_ == "json":
        found = {name: [asdict(row) for row in rows] for name, rows in results.items()}
        print_json({"needles": len(cases), "ablated": found, "silenced": found})  # the second is the older name
        return
    shown = table("ablated", "answer's words found", "log-probability of the answer")
    for name, rows in results.items():
        spreads = [Spread.of([r.recall for r in rows]), Spread.of([r.log_probability for r in rows])]
        shown.add_row(plain(name), *(with_spread(s.mean, s.deviation) for s in spreads))
    out.print(f"{len(cases)} needles, model {plain(generator.name)}")
    out.print(shown)
