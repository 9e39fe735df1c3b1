"""Command line of the evaluation: `qrhead eval`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Annotated

import typer

from qr_core.cli.common import EngineOption, FormatOption, err, out, print_json, progress
from qr_core.display.terminal import plain
from qr_core.errors import InputError, missing_extra
from qr_core.evaluation.options import EvaluationOptions
from qr_core.files.replace import make_folder
from qr_core.parallel.pool import Workers


def evaluate(
    options: EvaluationOptions,
    workers: Workers,
    engine: EngineOption = "local",
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder for report, metrics, runs and candidate sets; an interrupted run goes on there."
        ),
    ] = None,
    format_: FormatOption = "table",
) -> None:
    """Measure quality and time on a data set, beside baselines on the same work.

    Keys of addresses are taken from the environment's OPENAI_API_KEY. With --engine ray the attention systems (qr, all,
    random-heads, retrieval-heads) rank on Ray, the others here.
    """
    if folder is not None:
        make_folder(folder)
    try:
        from qr_core.evaluation.launch import launch
        from qr_core.evaluation.report.show import show

        results = launch(options, folder, _tracked, workers if engine == "ray" else None)
    except ModuleNotFoundError as error:
        raise InputError(missing_extra(error, "eval")) from error
    if format_ == "json":
        print_json(results.report)
        return
    show(out, results.report)
    if folder is not None:
        err.print(f"report: {plain(str(folder / 'report.md'))}, report.html", soft_wrap=True)


@contextmanager
def _tracked(name: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar for one system, which is told of each query that is done."""
    with progress(name) as show:
        done = count(1)
        show(0, total)
        yield lambda: show(next(done), total)
