"""Encoders beside the subject."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qr_core import ModelLoadError
from qr_core.benchmark.encoders import cross_encoder
from qr_core.benchmark.subject import Loaded
from tests.unit.benchmark.small import SMALL


def test_a_cross_encoder_that_is_not_there():
    with pytest.raises(ModelLoadError, match="cannot load the cross-encoder no/such/folder"):
        cross_encoder(Loaded(replace(SMALL, cross_encoder="no/such/folder")))
