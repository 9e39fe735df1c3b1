"""Fixtures of answers: a judge."""

from __future__ import annotations

import pytest

from tests.stub_endpoint import serving


@pytest.fixture
def judge_stub():
    with serving() as server:
        server.says("Yes.")
        yield server
