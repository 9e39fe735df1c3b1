"""Distributed: rank a file of jobs into a folder of parts, in this process or on a Ray cluster.

The engines differ only in who runs the parts. Both call the same `Ranker`, and this process alone reads the input and
writes the output, so other machines need neither. A run that ends early, for whatever reason, goes on where it was.

Knows nothing of prompts or models.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from qr_core.bulk import Options, Ranker, StoppedError
from qr_core.bulk_files import Done, JobFile, OutputFolder, Part, job_record, opened, part_row, read_part
from qr_core.bulk_formats import BulkFormat, parquet, trec_id
from qr_core.checks import check_one_of, check_whole_number
from qr_core.errors import InputError, ModelLoadError, QRHeadError
from qr_core.types import Order
from qr_core.version import __version__

Engine = Literal["local", "ray"]
Progress = Callable[[int, int], None]
"""Called with the jobs done and how many there are."""
PART_SIZE = 100
RETRIES = 5
"""So often a part is tried again whose worker died."""
BLOCKS = 5000
"""Ray keeps account of at most so many pieces; beyond it each holds several parts."""


@dataclass(frozen=True)
class Workers:
    """Who runs the parts on Ray.

    Attributes
    ----------
    count : int, optional
        How many; by default as many as the cluster has room for.
    gpus, cpus : float, optional
        Of each. By default one GPU where the cluster has any and the device is not the CPU, and one CPU core; torch
        takes so many threads.
    address : str, optional
        Of the cluster. By default that of RAY_ADDRESS, or one that runs on this machine, or one that is started.
    """

    count: int | None = None
    gpus: float | None = None
    cpus: int = 1
    address: str | None = None


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
    scorer: Mapping[str, Any] | None = None,
    top_k: int | None = None,
    order: Order = "given",
    format: BulkFormat = "parquet",  # noqa: A002 - the option's name
    engine: Engine = "local",
    part_size: int = PART_SIZE,
    workers: Workers | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Rank every job of a file, with `QRScorer.rank_many`.

    Parameters
    ----------
    source : str or Path
        JSON lines or Parquet of `query`, `documents` and, if they like, `id`; documents as for `QRScorer.rank`.
        Consecutive jobs with the same documents read them once.
    folder : str or Path
        Gets `part-00000.parquet`, ... and the account of what is done. Every job is in it once, by its position `job`.
    scorer : mapping, optional
        Arguments of `QRScorer.from_pretrained`.
    top_k, order
        As for `QRScorer.rank`.
    format : str
        `parquet`, `jsonl`, or `trec`: a run, whose failed jobs stand in `part-00000.errors.jsonl`, ...
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
    check_one_of("format", format, BulkFormat)
    check_one_of("order", order, Order)
    check_whole_number("top_k", top_k)
    check_whole_number("part_size", part_size)
    if format == "parquet":
        parquet()
    options = Options(dict(scorer or {}), top_k, order, format)
    record = _record(options)
    with opened(Path(source), part_size, _different_ids(Path(source)) if format == "trec" else None) as jobs:
        output = OutputFolder(Path(folder), job_record(jobs, part_size, record), format)
        try:
            resumed = len(output.done)
            _run(jobs, output, options, engine, workers or Workers(), progress or (lambda *_: None))
        finally:
            output.close()
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
        named = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise StoppedError(
            f"{len(missing)} of {len(file.parts)} parts are not done ({named}): their workers died {RETRIES + 1} times "
            "each, perhaps for lack of memory; the others are kept, and the same command goes on"
        )


def _record(options: Options) -> dict[str, Any]:
    """Everything but the input that decides the results."""
    scorer = options.make_scorer()
    return {
        "version": __version__,
        "model": scorer.model_name,
        "revision": scorer.source.revision,
        "dtype": str(options.scorer.get("dtype", "auto")),
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
    """Parts as a Ray Data stream: read here, ranked by a pool of actors, taken here.

    Parts are read as workers take them and results are taken as they are made: Ray Data holds the stages back.
    """
    ray = _imported()
    own, tries = not ray.is_initialized(), None
    try:
        if own:
            ray.init(address=workers.address, log_to_driver=False, logging_level=logging.ERROR)
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.max_consecutive_actor_init_deaths = RETRIES
        gpus, count = _room(ray.cluster_resources(), options, workers, len(parts))
        here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
        tries = ray.remote(_Tries).options(num_cpus=0, label_selector=here).remote()
        rows = [part_row(part, b"") for part in parts]
        results = (
            ray.data.from_items(rows, override_num_blocks=min(len(rows), BLOCKS))
            .map(_Reading(path), num_cpus=0, compute=ray.data.TaskPoolStrategy(2), label_selector=here)
            .map(
                _Ranking,
                fn_constructor_args=(options, tries),
                compute=ray.data.ActorPoolStrategy(size=count, max_tasks_in_flight_per_actor=2),
                num_cpus=workers.cpus,
                num_gpus=gpus,
            )
        )
        for row in results.iter_rows():
            if row["fault"]:
                raise ModelLoadError(row["fault"]) if row["load"] else StoppedError(row["fault"])
            if row["tried"] <= RETRIES:
                yield Done(row["number"], row["jobs"], row["failed"], row["content"], row["errors"])
    except (ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError) as error:
        if isinstance(error, QRHeadError):
            raise
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
        raise StoppedError(f"Ray: {type(error).__name__}: {reason}; what is done is kept") from error
    finally:
        if own and ray.is_initialized():
            ray.shutdown()
        elif tries is not None and ray.is_initialized():
            ray.kill(tries)


def _imported() -> Any:
    """Ray, with Ray Data; it reports to nobody unless told to."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise InputError(f"{error.name} is missing: pip install 'qrhead[distributed]'") from error
    return ray


def _room(resources: Mapping[str, float], options: Options, workers: Workers, parts: int) -> tuple[float, int]:
    """GPUs of each worker, and how many workers."""
    gpus = workers.gpus
    if gpus is None:
        gpus = float(resources.get("GPU", 0) >= 1 and not str(options.scorer.get("device") or "").startswith("cpu"))
    if workers.count is not None:
        return gpus, workers.count
    fitting = [resources.get("CPU", 0) / workers.cpus] + ([resources.get("GPU", 0) / gpus] if gpus else [])
    count = int(min(fitting))
    if not count:
        raise InputError(
            f"the cluster has no room for a worker of {workers.cpus} CPUs and {gpus:g} GPUs: ask for less of them"
        )
    return gpus, min(count, parts)


class _Reading:
    """Puts its lines into a part's row. Runs on the machine that has the input."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "lines": read_part(self.path, _part(row))}


class _Tries:
    """How often each part was begun: an actor beside the driver, which outlives the workers."""

    def __init__(self) -> None:
        self.begun: Counter[int] = Counter()

    def begin(self, number: int) -> int:
        """How often it was begun before."""
        self.begun[number] += 1
        return self.begun[number] - 1


class _Ranking:
    """A worker of the pool: holds the model. What ends the run is told in a row, for Ray would try it again."""

    def __init__(self, options: Options, tries: Any) -> None:
        self.options = options
        self.tries = tries
        self.ranker: Ranker | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        import ray

        part = _part(row)
        done, fault, load = Done(part.number, part.jobs, 0, b""), "", False
        tried = ray.get(self.tries.begin.remote(part.number))
        try:
            if tried <= RETRIES:
                if self.ranker is None:
                    self.ranker = Ranker(self.options)
                done = self.ranker(part, row["lines"])
        except QRHeadError as error:
            fault, load = str(error), isinstance(error, ModelLoadError)
        return {**asdict(done), "tried": tried, "fault": fault, "load": load}


def _part(row: Mapping[str, Any]) -> Part:
    return Part(**{name: int(row[name]) for name in Part.__dataclass_fields__})
