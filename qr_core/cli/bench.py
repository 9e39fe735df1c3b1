"""Command line: `qrhead bench`."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from qr_core.cli.common import Device, Dtype, Format, FormatOption, LayoutOption, Window, err, out, print_json
from qr_core.errors import InputError


class Clock(str, Enum):
    """What seconds are: of the wall, or of the processor, where other work keeps the machine busy."""

    wall = "wall"
    cpu = "cpu"


def bench(
    model: Annotated[str, typer.Option(help="random, embedded, or hub id or folder of a model.")] = "random",
    heads: Annotated[str | None, typer.Option(help="As for `rank`; any set fits a random model of its shape.")] = None,
    layers: Annotated[int, typer.Option(help="Layers of the random model.", min=2)] = 16,
    hidden: Annotated[int, typer.Option(help="Its hidden size, a multiple of 128.", min=128)] = 1024,
    deepest: Annotated[int | None, typer.Option(help="Its deepest layer with a selected head, from 0.", min=0)] = None,
    lengths: Annotated[str, typer.Option(help="Tokens of the prompt, such as 1000,4000,16000.")] = "4000",
    variants: Annotated[
        str, typer.Option("--variants", "--sides", help="Some of: see above, separated by commas.")
    ] = "all",
    depths: Annotated[str | None, typer.Option(help="Deepest layers to compare, such as 3,7,11,15.")] = None,
    documents: Annotated[
        str | None, typer.Option(help="Numbers of documents for the independent layout, such as 10,100,1000.")
    ] = None,
    repeats: Annotated[int, typer.Option(help="Timed rounds; the median counts.", min=1)] = 5,
    memory: Annotated[bool, typer.Option(help="Measure peak memory, each variant in a fresh process.")] = True,
    clock: Annotated[Clock, typer.Option(help="cpu: seconds of the processor, on a busy machine.")] = Clock.wall,
    cross_encoder: Annotated[
        str | None, typer.Option(help="Hub id or folder. Default: of MiniLM's shape, random weights.")
    ] = None,
    layout: LayoutOption = None,
    max_prompt_tokens: Window = None,
    device: Device = None,
    dtype: Dtype = "auto",
    folder: Annotated[Path | None, typer.Option("--out", help="Folder for bench.json, bench.md and bench.png.")] = None,
    format_: FormatOption = Format.table,
) -> None:
    """Time scoring beside a plain forward pass, the published algorithm and a cross-encoder.

    plain: one forward pass of the whole prompt, no language-model head. published: documents through all layers,
    then query and N/A with the attention of all heads. joint: ranking, nothing encoded before. second: another query
    over the same documents. many: a hundred queries at once, in --layout; many-warm: over documents that were ranked
    before; both beside a single query. independent-cold, independent-second, independent-warm: documents encoded
    independently, nothing encoded before, another query over them, and a new combination of documents that were
    encoded. cross-encoder: every pair; dense: every document; both for scale.
    """
    from qr_core.benchmark import plot, report
    from qr_core.benchmark.plan import Plan, Shape, Subject
    from qr_core.benchmark.run import run
    from qr_core.display.figures import figure
    from qr_core.options import ScorerOptions

    chosen: Any = layout.value if layout else None
    subject = Subject(
        model,
        Shape(layers, hidden),
        deepest,
        cross_encoder,
        ScorerOptions(heads=heads, layout=chosen, device=device, dtype=dtype, max_prompt_tokens=max_prompt_tokens),
    )
    plan = Plan(
        lengths=_numbers("--lengths", lengths),
        variants=tuple(name.strip() for name in variants.split(",")),
        depths=_numbers("--depths", depths),
        documents=_numbers("--documents", documents),
        repeats=repeats,
        memory=memory,
        clock=clock.value,
    )
    if folder is not None:
        figure()  # a missing package is said before an hour of measuring
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make the folder {folder}: {error.strerror or error}") from error
    found = run(subject, plan, lambda what: err.print(what, soft_wrap=True))
    if folder is not None:
        (folder / "bench.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        (folder / "bench.md").write_text(report.markdown(found), encoding="utf-8")
        (folder / "bench.png").write_bytes(plot.png(found))
    if format_ is Format.json:
        print_json(found)
    else:
        report.show(out, found)


def _numbers(option: str, given: str | None) -> tuple[int, ...]:
    if given is None:
        return ()
    try:
        return tuple(int(number) for number in given.split(","))
    except ValueError:
        raise InputError(f"{option} {given!r}: pass whole numbers with commas between them") from None
