"""A process of several that share one model: python -m torch.distributed.run --nproc-per-node 2 -m tests.sharded OUT.

Ranks and prunes, and writes what it got; tests/unit/attention/test_sharding.py compares. Not a test by itself.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch.distributed

from qr_core import QRScorer
from tests.helpers import DOCUMENTS, GOLDEN, QUERY

CASES = [
    ("tiny-llama", "2-1,3-4,0-7,5-0", "joint"),
    ("tiny-llama", "2-6,3-1", "independent"),
    ("tiny-qwen2", "1-0,2-1,0-3", "joint"),
    ("tiny-qwen2", "all", "joint"),
]


def results(name: str, heads: str, layout: str, tp_size: int | None) -> dict:
    """What one scorer makes of the sample documents: scores in the order of the documents, and what it keeps."""
    scorer = QRScorer.from_pretrained(
        GOLDEN / name, heads, template="plain", layout=layout, device="cpu", tp_size=tp_size, max_prompt_tokens=150
    )
    rankings = scorer.rank_many(
        [(QUERY, DOCUMENTS), ("Who built the bridge?", DOCUMENTS), (QUERY, DOCUMENTS[::-1] * 3)]
    )
    return {
        "scores": [[hit.score for hit in sorted(ranking, key=lambda hit: hit.index)] for ranking in rankings],
        "windows": [ranking.windows for ranking in rankings],
        "pruned": scorer.prune(QUERY, DOCUMENTS, max_tokens=60).text,
    }


if __name__ == "__main__":
    found = [results(*case, tp_size=2) for case in CASES]
    Path(sys.argv[1], f"{torch.distributed.get_rank()}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()
