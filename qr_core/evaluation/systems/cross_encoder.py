"""Cross-encoders: models trained to score one query and one document read together.

The strong baseline where one is at hand; sentence-transformers loads and runs it. Each score depends on its own
document alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from qr_core.checks import encodable
from qr_core.display.wording import titled
from qr_core.errors import ModelLoadError, NonFiniteError, reason_of
from qr_core.evaluation.options import EvaluationOptions
from qr_core.evaluation.systems.entry import Entry, Ranker
from qr_core.evaluation.work import CandidateSet
from qr_core.model.loading import pick_device

if TYPE_CHECKING:
    import torch

BATCH = 32
_HEADS = ("ForSequenceClassification", "ForCausalLM")
"""What the classes of models end with that can score as they are: by a trained head, or by the words yes and no."""


def cross_encoder_ranker(model: str, device: str | torch.device | None = None) -> Ranker:
    """A cross-encoder's raw output, title and text joined.

    A pair longer than the model's limit is cut to it, from the end of the longer of the two (as a rule the document);
    the limit is the tokenizer's or the model's positions, whichever is less. Scores have no activation: a sigmoid
    would make the best documents equal.

    Parameters
    ----------
    model : str
        Folder or hub id of a sequence classifier with one label. Its weights must be safetensors, and code from its
        repository does not run. Offline (`HF_HUB_OFFLINE=1`) only what was downloaded before is found.
    device : str, optional
        By default the best there is.

    Raises
    ------
    ModuleNotFoundError
        When sentence-transformers is not installed.
    ModelLoadError
        When the weights are missing or broken, or are those of no cross-encoder.
    NonFiniteError
        While ranking, when a score is not finite.
    """
    import torch
    from sentence_transformers import CrossEncoder

    place = pick_device(device)
    try:
        encoder = CrossEncoder(
            model,
            device=place,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
            activation_fn=torch.nn.Identity(),
        )
    except Exception as error:  # OSError, ValueError and what else the libraries below have
        raise ModelLoadError(
            f"cannot load the cross-encoder {model}: {reason_of(error).rstrip('.')} "
            "(pass its folder, or a hub id that is downloaded or can be: HF_HUB_OFFLINE forbids that)"
        ) from error
    classes = encoder.config.architectures or []
    if len(encoder) == 1 and classes and not any(name.endswith(_HEADS) for name in classes):
        # It would load, with a head of random numbers.
        raise ModelLoadError(f"{model} is a {classes[0]} without a head that scores pairs: pass a cross-encoder")
    if encoder.num_labels != 1:
        raise ModelLoadError(f"{model} gives {encoder.num_labels} numbers for a pair: pass a cross-encoder with one")

    def scores(candidates: CandidateSet) -> list[float]:
        query = encodable(candidates.query)
        pairs = [(query, encodable(titled(d.title, d.text))) for d in candidates.documents]
        found = [float(score) for score in encoder.predict(pairs, batch_size=BATCH, show_progress_bar=False)]
        if not all(map(math.isfinite, found)):
            raise NonFiniteError(f"the cross-encoder {model} gave a score that is not finite: check its weights")
        return found

    def rank(sets: Sequence[CandidateSet]) -> Iterable[list[float]]:
        return map(scores, sets)

    return rank


def cross_encoder_entries(options: EvaluationOptions) -> list[Entry]:
    """The one entry."""
    model, device = str(options.systems.cross_encoder_model), options.scorer.device
    return [Entry("cross-encoder", {"model": model}, lambda: cross_encoder_ranker(model, device))]
