"""Provenance: what figures depend on beside the systems: the work itself, versions, and the machine."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from qr_core.evaluation.work import CandidateSet

PACKAGES = ("qrhead", "torch", "transformers", "numpy", "ir-measures", "bm25s", "sentence-transformers")


def digest(value: Any) -> str:
    """sha256 of plain data."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def fingerprint(sets: Sequence[CandidateSet]) -> str:
    """sha256 of all queries and candidates, in their order. Candidates that several queries share are hashed once."""
    known: dict[int, str] = {}
    for candidates in sets:
        documents = candidates.documents
        if id(documents) not in known:
            known[id(documents)] = digest([(d.id, d.title, d.text) for d in documents])
    return digest([(one.query_id, one.query, known[id(one.documents)]) for one in sets])


def machine() -> dict[str, Any]:
    """What the figures of time depend on, without the machine's name."""
    import torch

    found: dict[str, Any] = {"system": platform.system(), "processor": platform.machine(), "cpus": os.cpu_count()}
    found["threads"] = torch.get_num_threads()
    return found | {"gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None}


def versions() -> dict[str, str]:
    """Of this package and of what its figures depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
