"""Command line: `qrhead bench`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from qr_core.benchmark.plan import Plan, Subject
from qr_core.cli.common import FormatOption, err, out, print_json
from qr_core.files.replace import make_folder, write_file, writing


def bench(
    subject: Subject,
    plan: Plan,
    folder: Annotated[Path | None, typer.Option("--out", help="Folder for bench.json, bench.md and bench.png.")] = None,
    format_: FormatOption = "table",
) -> None:
    """Time scoring beside a plain forward pass, the published algorithm and a cross-encoder.

    Of an encoder, such as the embedded model, the late variants and those of its layout are timed, beside the
    cross-encoder and the dense encoder; a decoder can do all.

    plain: one forward pass of the whole prompt, no language-model head. published: documents through all layers,
    then query and N/A with the attention of all heads. joint: ranking, nothing encoded before. second: another query
    over the same documents. many: a hundred queries at once, in --layout; many-warm: over documents that were ranked
    before; both beside a single query. independent-cold, independent-second, independent-warm: documents encoded
    independently, nothing encoded before, another query over them, and a new combination of documents that were
    encoded. late-cold, late-second, late-warm: the same, the query encoded alone too. cross-encoder: every pair;
    dense: every document; both for scale.
    """
    from qr_core.benchmark import plot, report
    from qr_core.benchmark.run import run
    from qr_core.display.figures import figure

    if folder is not None:
        figure()  # a missing package is said before an hour of measuring
        make_folder(folder)
    found = run(subject, plan, lambda what: err.print(what, soft_wrap=True))
    if folder is not None:
        with writing(folder):
            write_file(folder / "bench.json", json.dumps(found, indent=1) + "\n")
            write_file(folder / "bench.md", report.markdown(found))
            write_file(folder / "bench.png", plot.png(found))
    if format_ == "json":
        print_json(found)
    else:
        report.show(out, found)
