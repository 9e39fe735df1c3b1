"""A tiny recipe, and what the tests of training share."""

from __future__ import annotations

import gzip
import json

import pytest
import torch

from qr_core.training import train
from qr_core.training.batches import Batches

TINY = {"hidden": 32, "heads": 2, "intermediate": 64, "warmup": 2, "layers": 3, "read_layers": (1,), "select_packs": 8}


forks = pytest.mark.filterwarnings(
    "ignore:.*fork:DeprecationWarning",  # of a process with several threads
    "ignore:This DataLoader will create:UserWarning",  # more workers than this machine has cores
)


def write(path, rows):
    path.write_bytes(gzip.compress("\n".join(json.dumps(row) for row in rows).encode()))


def batches_for(init, recipe):
    tokenizer = train.tokenizer_from(init)
    return Batches(tokenizer, tuple(tokenizer.convert_tokens_to_ids(["[CLS]", "[SEP]"])), recipe)


def texts_of(batch):
    """The tokens of a batch's texts, as they stand in the packs."""
    return batch.layout.ids.flatten()[batch.tokens].split(torch.bincount(batch.text_of).tolist())
