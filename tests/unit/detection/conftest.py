"""A model with one head planted that finds what answers."""

from __future__ import annotations

import pytest

from tests.planted import Planted
from tests.unit.detection.planted import PLANTED


@pytest.fixture(scope="package")
def planted(tmp_path_factory):
    """Folders of the model with its planted head whole, and with that head's keys destroyed."""
    folder = tmp_path_factory.mktemp("planted")
    model = Planted()
    model.attend_to_like_words(*PLANTED)
    whole = model.save(folder / "whole")
    model.destroy_keys(*PLANTED)
    return whole, model.save(folder / "destroyed")
