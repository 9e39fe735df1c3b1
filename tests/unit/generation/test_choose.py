"""A generator from an address, a model's folder, or an embedded model."""

from __future__ import annotations

import pytest

from qr_core import InputError
from qr_core.generation import EndpointGenerator, LocalGenerator, generator_of
from tests.helpers import GOLDEN


def test_an_address_is_an_endpoint(stub):
    made = generator_of(stub.url, "served-model", timeout=3)
    assert isinstance(made, EndpointGenerator)
    assert made.name == "served-model"
    made._client.close()


def test_a_folder_and_an_embedded_decoder_are_local():
    folder = str(GOLDEN / "tiny-llama")
    assert generator_of(folder, device="cpu").name == folder
    embedded = generator_of("embedded-fast", device="cpu")
    assert isinstance(embedded, LocalGenerator)
    assert embedded.name == "qrhead-mini-fast"


@pytest.mark.parametrize("name", ["embedded", "qrhead-mini"])
def test_the_embedded_encoder_does_not_write(name):
    with pytest.raises(
        InputError, match=r"\(qrhead-mini\) ranks and prunes, it does not write: name a model that does"
    ):
        generator_of(name, device="cpu")


def test_a_model_takes_no_second_name():
    with pytest.raises(InputError, match="embedded names a model itself"):
        generator_of("embedded", "other")
