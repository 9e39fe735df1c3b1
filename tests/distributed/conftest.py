"""A Ray cluster of several nodes on this machine, without a dashboard, with little shared memory."""

from __future__ import annotations

import os
from collections.abc import Iterator

import psutil
import pytest

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_memory_usage_threshold", "0.98")  # other jobs of the machine are not these tests' doing
# Workers that only get what others leave come to nothing on a busy machine.
os.environ.setdefault("RAY_worker_niceness", "0")
ray = pytest.importorskip("ray")

SMALL = {"object_store_memory": 100 * 2**20}


def again(start, tries: int = 4):
    """Ray gives a node 30 seconds to start, which a busy machine may not keep."""
    for left in reversed(range(tries)):
        try:
            return start()
        except Exception as error:  # Ray's own is no narrower
            if not left or "timed out" not in str(error):
                raise
    return None


class Nodes:
    """A head that runs nothing but the driver, and nodes with one CPU each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False, **SMALL}
        self.cluster = Cluster()
        again(lambda: self.cluster.add_node(**head))
        self.nodes = [self.add(), self.add()]
        ray.init(address=self.cluster.address, log_to_driver=False, logging_level="ERROR")

    def add(self):
        return again(lambda: self.cluster.add_node(num_cpus=1, **SMALL))

    def workers(self) -> list[psutil.Process]:
        """Processes of this cluster that hold a model."""
        found = []
        for node in self.nodes:
            raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
            found += [child for child in raylet.children(recursive=True) if "MapWorker" in "".join(child.cmdline())]
        return found

    def remove(self) -> None:
        """Kill everything on one node."""
        self.cluster.remove_node(self.nodes.pop(), allow_graceful=False)

    def stop(self) -> None:
        ray.shutdown()
        self.cluster.shutdown()


@pytest.fixture(scope="session")
def nodes() -> Iterator[Nodes]:
    running = Nodes()
    yield running
    running.stop()
