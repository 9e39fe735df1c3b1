"""What several tests need: the golden cases as scorers, and scores computed the long way."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from qr_core import Document, HeadSet, QRScorer
from qr_core.heads.parts import HeadShape

GOLDEN = Path(__file__).parent / "golden"
STRINGS = {
    "llama": {
        "prefix": "<|start_header_id|>user<|end_header_id|>",
        "suffix": "<|eot_id|><|start_header_id|>assistant<|end_header_id|>",
        "separator": " \n\n",
    },
    "qwen2": {"prefix": "<|im_start|>user", "suffix": "<|im_end|>\n<|im_start|>assistant", "separator": "\n\n"},
}
DOCUMENTS = [
    Document(
        "The lighthouse at Carrow Point was first lit in 1871. Its lamp could be seen for miles.", "Harbour light"
    ),
    Document("Every morning at five the baker lit the oven and set out forty loaves of rye bread.", "Bakery"),
    Document("The stone bridge across the Ellin has six arches and was built by Tobias Wren."),
]
QUERY = "When was the lighthouse first lit?"


def head_set(golden_file: dict, case: dict, **changes) -> HeadSet:
    """The head set of a golden case."""
    fields = {
        "model": case["model"],
        "config": {
            "layers": golden_file["layers"],
            "heads": golden_file["heads"],
            "kv_heads": golden_file["kv_heads"],
            "hidden": 64,
        },
        "template": "reference",
        "template_strings": STRINGS[golden_file["family"]],
        "criterion": "golden",
        "data": "golden",
        "heads": [(layer, head, None) for layer, head in case["head_list"]],
    }
    return HeadSet(**{**fields, **changes})


def golden_scorer(golden_file: dict, case: dict, **changes) -> QRScorer:
    """A scorer as a caller would make it for a golden case."""
    heads = head_set(golden_file, case, **changes)
    return QRScorer.from_pretrained(GOLDEN / case["model"], heads=heads, device="cpu")


def documents_of(case: dict) -> list[Document]:
    return [Document(d["paragraph_text"], d.get("title"), d["idx"]) for d in case["docs"]]


def strict(text: str) -> dict:
    """JSON without NaN and infinities, which are none."""

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def in_order(ranking) -> list[float]:
    """Scores in the order of the caller's documents."""
    return [hit.score for hit in sorted(ranking, key=lambda hit: hit.index)]


def eager_masses(model, ids, query_start: int) -> torch.Tensor:
    """Mean attention of rows query_start.. on the tokens before them, the long way; shape (layers, heads, tokens)."""
    with torch.no_grad():
        attentions = model(input_ids=torch.tensor([ids]), output_attentions=True, use_cache=False).attentions
    return torch.stack([a[0, :, query_start:, :query_start].mean(dim=1) for a in attentions])


def eager_model(folder):
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()


def captured_masses(scorer: QRScorer, query: str, documents) -> tuple[torch.Tensor, object]:
    """Raw mass of the scorer's heads on the tokens before the query, shape (heads, tokens), and the prompt."""
    found = scorer.with_options(calibrate=False).token_masses(query, documents)
    return found.mass, found.prompt


def every_head(folder) -> str:
    """All pairs of a model, those in layers with a sliding window too, which `"all"` leaves out."""
    shape = HeadShape.of(AutoConfig.from_pretrained(folder))
    return ",".join(f"{layer}-{head}" for layer in range(shape.layers) for head in range(shape.heads))


def flat_heads(scorer: QRScorer) -> list[tuple[int, int]]:
    return [(layer, head) for layer, chosen in scorer.heads.by_layer().items() for head in chosen]


def plain_score(tokens: torch.Tensor, spans) -> list[float]:
    """The published rule, written out: mean - 2 std (n - 1) per document, then the sum."""
    scores = []
    for start, end in spans:
        inside = tokens[start:end]
        if len(inside) > 1:
            cut = inside.mean() - 2 * inside.std()
            inside = inside[inside > cut]
        scores.append(float(inside.sum()))
    return scores
