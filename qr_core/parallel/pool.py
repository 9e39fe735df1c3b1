"""Ray pool: items in, a pool of actors that each hold what is slow to make, such as a model, results out as they come.

    items -> sent from here (or read here, when a worker takes them) -> a worker's function -> (number, result)

Ray Data holds the stages back: what no worker takes yet is not read. An item whose worker dies is tried again by
another; one that was tried too often is left out. Errors of this package end the run, as they do without Ray.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import secrets
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from qr_core.errors import InputError, QRHeadError, StoppedError, missing_extra, reason_of
from qr_core.fields import option

log = logging.getLogger(__name__)

Engine = Literal["local", "ray"]
Function = Callable[[Any], Any]
"""From an item to its result."""
RETRIES = 5
"""How often an item whose worker died is tried again."""
BLOCKS = 5000
"""Ray keeps account of at most this many pieces; with more items, each piece holds several."""

TOKENS_SINCE = (2, 52)
"""The first version of Ray whose clusters can ask for a token."""


@dataclass(frozen=True)
class Workers:
    """Who does the work on Ray.

    Attributes
    ----------
    count : int, optional
        How many; by default as many as the cluster has room for.
    gpus, cpus : float, optional
        Of each. By default one GPU where the cluster has any and the device is not the CPU, and one CPU core; torch
        takes as many threads as there are cores.
    address : str, optional
        Of the cluster. By default that of RAY_ADDRESS, or one that runs on this machine, or one that is started.
    """

    PANEL = "Ray"

    count: int | None = option(
        None, "How many workers hold the model. Default: as many as fit.", flags="--workers", least=1
    )
    gpus: float | None = option(None, "Default: 1 where there are any.", flags="--gpus-per-worker", least=0)
    cpus: int = option(1, "Cores, and threads of torch.", flags="--cpus-per-worker", least=1)
    address: str | None = option(
        None, "The cluster. Default: RAY_ADDRESS, or one on this machine.", flags="--ray-address"
    )


def on_ray(
    items: Sequence[Any],
    make: Callable[[], Function],
    workers: Workers,
    device: object = None,
    read: Function | None = None,
) -> Iterator[tuple[int, Any]]:
    """Work through `items` on a pool of actors.

    Parameters
    ----------
    items : sequence
        What Ray can send.
    make : callable
        Called once in each worker, at its first item.
    workers : Workers
    device : optional
        What `make` puts its model on; the CPU needs no GPU.
    read : callable, optional
        From an item to what a worker is handed. Runs on this machine, when a worker takes the item.

    Yields
    ------
    tuple of int and object
        An item's position and its result, in any order. Items whose workers died too often are missing.

    Raises
    ------
    InputError
        When Ray is not installed, or the cluster has no room for a worker.
    QRHeadError
        What a worker raised.
    StoppedError
        When Ray cannot go on.
    """
    if not items:
        return
    starts = _will_start(workers.address)
    if starts and "ray" not in sys.modules:  # Ray looks at this when it is imported, and never again
        _make_token()
    ray = _imported()
    own, tries = not ray.is_initialized(), None
    try:
        if own:
            quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
            started = {"include_dashboard": False} if starts else {}
            if starts:
                _warn_without_token()
            ray.init(address=workers.address, **quiet, **started)
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.max_consecutive_actor_init_deaths = RETRIES
        gpus, count = _room(ray.cluster_resources(), device, workers, len(items))
        here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
        tries = ray.remote(_Tries).options(num_cpus=0, label_selector=here).remote()
        rows = [{"number": number, "item": _Box(item)} for number, item in enumerate(items)]
        data = ray.data.from_items(rows, override_num_blocks=min(len(rows), BLOCKS))
        if read is not None:
            two = ray.data.TaskPoolStrategy(2)
            data = data.map(_Read(read), num_cpus=0, compute=two, label_selector=here)
        results = data.map(
            _Worker,
            fn_constructor_args=(make, tries, RETRIES),
            compute=ray.data.ActorPoolStrategy(size=count, max_tasks_in_flight_per_actor=2),
            num_cpus=workers.cpus,
            num_gpus=gpus,
        )
        for row in results.iter_rows():
            if row["given up"]:
                continue
            result = row["result"].content
            if isinstance(result, QRHeadError):
                raise result
            yield int(row["number"]), result
    except (ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError) as error:
        if isinstance(error, QRHeadError):
            raise
        reason = reason_of(error)
        raise StoppedError(f"Ray: {type(error).__name__}: {reason}; what was written is kept") from error
    finally:
        if own and ray.is_initialized():
            ray.shutdown()
        elif tries is not None and ray.is_initialized():
            ray.kill(tries)


def left_out(what: str, missing: Sequence[object], total: int) -> StoppedError:
    """The error of a run whose workers died over some items."""
    named = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
    return StoppedError(
        f"{len(missing)} of {total} {what} are not done ({named}): their workers died {RETRIES + 1} times each, "
        "perhaps for lack of memory; the same command tries them again"
    )


def _imported() -> Any:
    """Ray, with Ray Data; it reports to nobody unless told to."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise InputError(missing_extra(error, "distributed")) from error
    return ray


def _will_start(address: str | None) -> bool:
    """Whether Ray finds no cluster, and so starts one for this run."""
    if address is not None:
        return address == "local"
    running = Path(os.environ.get("RAY_TMPDIR") or "/tmp", "ray", "ray_current_cluster")  # noqa: S108 - Ray's place
    return not os.environ.get("RAY_ADDRESS") and not running.exists()


def _make_token() -> None:
    """Let the cluster that is started take work only from this process and its workers.

    Ray listens on all interfaces, whatever address it is given. What the user says of tokens holds.
    """
    if "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _warn_without_token() -> None:
    """Say in a line what a cluster opens that asks for no token."""
    version = tuple(int(part) for part in importlib.metadata.version("ray").split(".")[:2])
    if version < TOKENS_SINCE or os.environ.get("RAY_AUTH_MODE") != "token":
        log.warning(
            "Ray's cluster listens on all interfaces of this machine, without a password, while the run lasts: "
            "use it behind a firewall, or with Ray 2.52 or newer and RAY_AUTH_MODE=token set from the start"
        )


def _room(resources: Mapping[str, float], device: object, workers: Workers, items: int) -> tuple[float, int]:
    """GPUs of each worker, and how many workers."""
    gpus = workers.gpus
    if gpus is None:
        gpus = float(resources.get("GPU", 0) >= 1 and not str(device or "").startswith("cpu"))
    if workers.count is not None:
        return gpus, workers.count
    fitting = [resources.get("CPU", 0) / workers.cpus] + ([resources.get("GPU", 0) / gpus] if gpus else [])
    count = int(min(fitting))
    if not count:
        raise InputError(
            f"the cluster has no room for a worker of {workers.cpus} CPUs and {gpus:g} GPUs: ask for less of them"
        )
    return gpus, min(count, items)


class _Read:
    """Puts what `read` makes of an item in its place. Runs on the machine that has the input."""

    def __init__(self, read: Function) -> None:
        self.read = read

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "item": _Box(self.read(row["item"].content))}


@dataclass(frozen=True)
class _Box:
    """Keeps Ray Data from making columns of what an item or a result is made of."""

    content: Any


class _Tries:
    """How often each item was begun: an actor beside the driver, which outlives the workers."""

    def __init__(self) -> None:
        self.begun: Counter[int] = Counter()

    def begin(self, number: int) -> int:
        """How often it was begun before."""
        self.begun[number] += 1
        return self.begun[number] - 1


class _Worker:
    """A worker of the pool. An error that ends the run is its item's result, for Ray would try it again."""

    def __init__(self, make: Callable[[], Function], tries: Any, retries: int) -> None:
        self.make = make
        self.tries = tries
        self.retries = retries
        self.function: Function | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        import ray

        result: Any = None
        given_up = ray.get(self.tries.begin.remote(row["number"])) > self.retries
        if not given_up:
            try:
                if self.function is None:
                    self.function = self.make()
                result = self.function(row["item"].content)
            except QRHeadError as error:
                result = error
        return {"number": row["number"], "given up": given_up, "result": _Box(result)}
