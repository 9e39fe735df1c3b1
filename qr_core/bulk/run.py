"""Bulk ranking: a file of jobs, ranked into a folder of parts, in this process or on a Ray cluster.

The engines differ only in who runs the parts. Both call the same `Ranker`, and this process alone reads the input and
writes the output, so other machines need neither. A run that ends early, for whatever reason, goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from qr_core.bulk.files import JobFile, Part, opened, read_part
from qr_core.bulk.formats import FORMATS, trec_id
from qr_core.bulk.output import Done, OutputFolder, job_record, output_folder
from qr_core.bulk.ranker import Options, Ranker
from qr_core.checks import check_one_of, check_whole_number
from qr_core.errors import InputError
from qr_core.options import ScorerOptions
from qr_core.parallel.pool import Engine, Workers, left_out, on_ray
from qr_core.types import Order
from qr_core.version import __version__

Progress = Callable[[int, int], None]
"""Called with the jobs done and how many there are."""
PART_SIZE = 100


@dataclass(frozen=True)
class Summary:
    """What a run did.

    Attributes
    ----------
    jobs, failed : int
        Of the input, and those of them that have an error instead of hits.
    parts, resumed : int
        Files in the folder, and those of them that were there before.
    """

    jobs: int
    failed: int
    parts: int
    resumed: int


def rank_file(
    source: str | Path,
    folder: str | Path,
    *,
    scorer: ScorerOptions | Mapping[str, Any] | None = None,
    top_k: int | None = None,
    order: Order = "given",
    format: str = "parquet",  # noqa: A002 - the option's name
    engine: Engine = "local",
    part_size: int = PART_SIZE,
    workers: Workers | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Rank every job of a file, with `QRScorer.rank_many`.

    Parameters
    ----------
    source : str or Path
        JSON lines or Parquet of `query`, `documents` and optionally `id`; documents as for `QRScorer.rank`. The
        documents that consecutive jobs share are encoded once.
    folder : str or Path
        Gets `part-00000.parquet`, ... and the account of what is done. Every job is in it once, by its position `job`.
    scorer : ScorerOptions or mapping, optional
        The scorer's options, or some of them by name.
    top_k, order
        As for `QRScorer.rank`.
    format : str
        `parquet`, `jsonl`, `trec` (a run, whose failed jobs stand in `part-00000.errors.jsonl`, ...), or another of
        `qr_core.bulk.formats.FORMATS`.
    engine : str
        `local` or `ray`.
    part_size : int
        Jobs of a part: what is done again after a kill, and what a worker is handed at a time.
    workers : Workers, optional
        For Ray.
    progress : callable, optional

    Returns
    -------
    Summary

    Raises
    ------
    InputError
        When an option or the input's file is not usable, or the folder holds another run's results.
    ModelLoadError, HeadSetError
        As for `QRScorer.from_pretrained`.
    StoppedError
        When the run cannot go on; what is done is kept.
    """
    check_one_of("engine", engine, Engine)
    check_one_of("order", order, Order)
    check_whole_number("top_k", top_k)
    check_whole_number("part_size", part_size)
    into = FORMATS[format]
    if into.ready is not None:
        into.ready()
    chosen = scorer if isinstance(scorer, ScorerOptions) else ScorerOptions().changed(**(scorer or {}))
    options = Options(chosen, top_k, order, format)
    record = _record(options)
    with opened(Path(source), part_size, _different_ids(Path(source)) if into.by_id else None) as jobs:
        job = job_record(jobs, part_size, record)
        with output_folder(Path(folder), job, format, jobs.parts) as output:
            resumed = len(output.done)
            _run(jobs, output, options, engine, workers or Workers(), progress or (lambda *_: None))
            output.finish()
    failed = sum(done["failed"] for done in output.done.values())
    return Summary(jobs.jobs, failed, len(jobs.parts), resumed)


def _run(
    file: JobFile, output: OutputFolder, options: Options, engine: Engine, workers: Workers, progress: Progress
) -> None:
    waiting = [part for part in file.parts if part.number not in output.done]
    done = file.jobs - sum(part.jobs for part in waiting)
    progress(done, file.jobs)
    if not waiting:
        return
    run = _ray(file.path, waiting, options, workers) if engine == "ray" else _local(file.path, waiting, options)
    for one in run:
        if one.number not in output.done:
            done += one.jobs
        output.save(one)
        progress(done, file.jobs)
    missing = [part.number for part in waiting if part.number not in output.done]
    if missing:
        raise left_out("parts", missing, len(file.parts))


def _record(options: Options) -> dict[str, Any]:
    """Everything but the input that decides the results."""
    scorer = options.make_scorer()
    seldom = {
        "calibration": scorer.options.calibration,
        "quantized cache": scorer.options.quantized_cache,
        "retrieval weight": scorer.options.retrieval_weight or None,
        "length exponent": scorer.heads.length_exponent or None,
    }
    return {
        "version": __version__,
        "model": scorer.model_name,
        "revision": scorer.source.revision,
        "dtype": str(options.scorer.dtype),
        "heads": scorer.heads_name,
        "head list": [[layer, head] for layer, heads in scorer.heads.by_layer().items() for head in heads],
        "template": scorer.template.name,
        "layout": scorer.layout,
        "calibrate": scorer.calibrate,
        "filter tokens": scorer.filter_tokens,
        "max prompt tokens": scorer.max_prompt_tokens,
        "passage tokens": scorer.passage_tokens,
        "order": options.order,
        "top k": options.top_k,
        "format": options.format,
        **{name: value for name, value in seldom.items() if value is not None},
    }


def _different_ids(source: Path) -> Callable[[int, int, str | int | None], None]:
    """Refuse jobs that a TREC run could not tell apart."""
    seen: dict[str, int] = {}

    def look(job: int, line: int, key: str | int | None) -> None:
        first = seen.setdefault(trec_id(key, job), line)
        if first != line:
            raise InputError(
                f"{source}, line {line}: the id {trec_id(key, job)} is that of line {first} too, and a TREC run cannot "
                "tell them apart: change one, or use another format"
            )

    return look


def _local(path: Path, parts: Sequence[Part], options: Options) -> Iterator[Done]:
    """One part after the other, in this process."""
    ranker = Ranker(options)
    for part in parts:
        yield ranker(part, read_part(path, part))


def _ray(path: Path, parts: Sequence[Part], options: Options, workers: Workers) -> Iterator[Done]:
    """Parts read here, ranked by a pool of workers."""
    run = on_ray(parts, partial(_ranking, options), workers, options.scorer.device, partial(_lines, path))
    return (done for _, done in run)


def _lines(path: Path, part: Part) -> tuple[Part, bytes]:
    return part, read_part(path, part)


def _ranking(options: Options) -> Callable[[tuple[Part, bytes]], Done]:
    ranker = Ranker(options)
    return lambda item: ranker(*item)
