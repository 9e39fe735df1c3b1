"""Dense encoders, as a baseline: cosine similarity of embeddings; sentence-transformers loads and runs them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from qr_core.checks import encodable
from qr_core.display.wording import titled
from qr_core.errors import ModelLoadError, reason_of
from qr_core.evaluation.options import EvaluationOptions
from qr_core.evaluation.systems.entry import Entry, Ranker
from qr_core.evaluation.work import CandidateSet
from qr_core.model.loading import pick_device

if TYPE_CHECKING:
    import torch


def dense_ranker(model: str, device: str | torch.device | None = None) -> Ranker:
    """Rank with a sentence-transformers model, title and text joined.

    Texts beyond the model's limit are cut to it. Its weights must be safetensors, and code from its repository does
    not run.

    Raises
    ------
    ModelLoadError
        When its weights cannot be loaded.
    """
    from sentence_transformers import SentenceTransformer

    place = pick_device(device)
    try:
        encoder = SentenceTransformer(
            model, device=place, trust_remote_code=False, model_kwargs={"use_safetensors": True}
        )
    except Exception as error:  # OSError, ValueError and what else the libraries below have
        raise ModelLoadError(f"cannot load the encoder {model}: {reason_of(error)}") from error

    def encoded(texts: Sequence[str]) -> Any:
        return encoder.encode(list(map(encodable, texts)), normalize_embeddings=True, show_progress_bar=False)

    def rank(sets: Sequence[CandidateSet]) -> Iterable[list[float]]:
        if not sets[0].documents:
            yield from ([] for _ in sets)
            return
        documents = encoded([titled(d.title, d.text) for d in sets[0].documents])  # [documents, dimensions]
        for candidates in sets:
            yield [float(score) for score in documents @ encoded([candidates.query])[0]]

    return rank


def dense_entries(options: EvaluationOptions) -> list[Entry]:
    """The one entry."""
    model, device = str(options.systems.dense_model), options.scorer.device
    return [Entry("dense", {"model": model}, lambda: dense_ranker(model, device))]
