"""Models of every family, saved once for all parity tests."""

from __future__ import annotations

from functools import cache

import pytest

from tests.architectures import FAMILIES


@pytest.fixture(scope="session")
def saved(save_tiny):
    """Folder of a family, saved once; weights such as sinks are made to matter."""
    folders = {}

    def get(family: str):
        if family not in folders:
            folders[family] = save_tiny(FAMILIES[family]())
        return folders[family]

    return get


@pytest.fixture(scope="session")
def saved_encoder(save_encoder):
    """Folder of an encoder, saved once."""
    return cache(save_encoder)
