"""A small model of random weights, for all tests of the benchmark."""

from __future__ import annotations

import pytest

from qr_core.benchmark.plan import Plan
from qr_core.benchmark.run import run
from qr_core.benchmark.subject import Loaded
from tests.unit.benchmark.small import QUICK, SMALL


@pytest.fixture(scope="session")
def loaded() -> Loaded:
    return Loaded(SMALL)


@pytest.fixture(scope="session")
def found() -> dict:
    """A report with every sweep, without memory."""
    plan = Plan((500, 750), QUICK, depths=(0, 2), documents=(2, 4), repeats=1, memory=False)
    return run(SMALL, plan)
