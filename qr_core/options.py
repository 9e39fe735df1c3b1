"""Options: what a scorer is made with. One list for Python, the adapters, the command line, the server and all runs.

A new option is one field here and its use. Knows nothing of models, and of none of the places that offer the options.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qr_core.errors import InputError
from qr_core.types import Layout

if TYPE_CHECKING:
    import torch

    from qr_core.cache.documents import DocumentCache
    from qr_core.heads.sets import HeadSet


def option(default: Any, help: str, **more: Any) -> Any:  # noqa: A002 - as typer and argparse call it
    """A field of an options class.

    Parameters
    ----------
    help : str
        What the command line and the adapters say of it.
    more
        For the places that offer it: `cli`, the type that the command line takes in place of the field's own; `flags`,
        its names there, where they are not the field's; `panel`; `least` and `most`; `absent`, a mapping from a place
        (`cli`, `adapters`, `server`, `bulk`) to why the option is not offered there.
    """
    return field(default=default, metadata={"help": help, **more})


_ALL_TOGETHER = "all processes that torchrun started must make the same calls: use it from Python"


@dataclass(frozen=True)
class ScorerOptions:
    """Everything that `QRScorer.from_pretrained` takes.

    Attributes
    ----------
    model : str or Path, optional
        Hub id or folder of a decoder model; by default the small one inside this package, which needs no network.
    heads : str, Path or HeadSet, optional
        A published set's name (`qrhead heads` lists them), a head-set file, `"all"` for every head (In-Context
        Re-ranking) outside layers with a sliding window, if there are such, or pairs such as `"13-18,8-11"`
        (layer-head, from 0). By default the model's own set.
    template : str, optional
        `chat`, `reference`, `plain`, or another registered one; by default the head set's.
    layout : str, optional
        `joint`: all documents share one prompt, each seeing those before it. `independent`: each is encoded on its own,
        so that cost grows linearly and scores do not depend on order (see `qr_core.reading.independent`). By default
        the head set's; heads found under the other one read less well.
    document_cache : DocumentCache, str or Path, optional
        With the independent layout: where documents' keys and values are kept, or a folder to keep them in beside
        memory. By default 1 GiB of memory, of this scorer alone.
    revision : str, optional
        Branch, tag or commit on the hub.
    device : str or torch.device, optional
        By default CUDA, then MPS, then CPU.
    device_map : str or mapping, optional
        Passed to transformers to spread a model over devices, CPU and disk among them; needs accelerate.
    tp_size : int, optional
        Spread each layer over this many processes, started with torchrun (transformers' tensor parallelism). All of
        them make the same calls in the same order, and all get the results. Not with `device_map`.
    dtype : str or torch.dtype
        `auto` (the checkpoint's; see `qr_core.model.ModelSource`) or a torch dtype.
    calibrate : bool, optional
        Subtract the mass that the content-free query `N/A` gives; by default as the head set says.
    filter_tokens : bool
        Leave out each document's tokens below mean - 2 standard deviations, as the published code does.
    max_prompt_tokens : int, optional
        Longer input is cut into segments of at most this many tokens (see `qr_core.ranking.rounds`); at most the
        model's context, which is also the default, unless the head set names a shorter length. With the independent
        layout only positions are limited by the context (instruction, longest document, query); tokens are by this, by
        default the length that a head set of this layout names, or 131,072.
    passage_tokens : int, optional
        Documents with more tokens are encoded in parts, cut at paragraphs and sentences, and the best part's score
        counts. By default as the head set says, for its layout.
    cache_bytes : int, optional
        What was encoded of documents is kept for the next query over them, in memory, on the model's device. By default
        all scorers of the process share one cache of 1 GiB; with a number this one has a cache of its own of at most
        that many bytes, and with 0 nothing is kept from one call to the next. See `qr_core.cache`.
    quantized_cache : mapping, optional
        Keep what was encoded of documents in transformers' `QuantizedCache`, made with these arguments:
        `{"backend": "fp8"}`, or `{"backend": "quanto", "nbits": 4}` where that package is installed. Less memory
        between calls and in query passes; scores are no longer exact. Joint layout only.
    allow_model_mismatch : bool
        Accept a head set found for another model or revision of the same shape (a quantised copy, a fine-tune).
    trust_remote_code : bool
        Let code from the model's repository run. Off unless you trust that repository.
    allow_pickle : bool
        Load weights that are not safetensors; unpickling can run code from the file.
    """

    model: str | Path | None = option(None, "Hub id or folder of a model. Default: the embedded small model.", cli=str)
    heads: str | Path | HeadSet | None = option(
        None,
        'A published set, a head-set file, "13-18,8-11" (layer-head), or "all". Default: its own.',
        cli=str,
    )
    template: str | None = option(None, "Prompt template. Default: the head set's.")
    layout: Layout | None = option(
        None, "independent: documents encoded independently, in linear time. Default: the head set's."
    )
    document_cache: DocumentCache | str | Path | None = option(
        None, "Folder for encoded documents, with layout independent. Private data.", cli=Path
    )
    revision: str | None = option(None, "Branch, tag or commit on the hub.")
    device: str | torch.device | None = option(None, "cpu, cuda, cuda:1, mps. Default: the best there is.", cli=str)
    device_map: str | Mapping[str, str | int] | None = option(
        None, "Spread the model over devices, for example auto. Needs accelerate.", cli=str
    )
    tp_size: int | None = option(
        None,
        "Spread each layer over this many processes.",
        least=1,
        absent=dict.fromkeys(
            ("cli", "adapters", "server", "bulk"),
            _ALL_TOGETHER,
        ),
    )
    dtype: str | torch.dtype = option("auto", "auto, float32, bfloat16 or float16.", cli=str)
    calibrate: bool | None = option(
        None, "Subtract the N/A query. Default: the head set's.", flags="--calibrate/--no-calibrate"
    )
    filter_tokens: bool = option(True, "Drop each document's lowest tokens.", flags="--token-filter/--no-token-filter")
    max_prompt_tokens: int | None = option(
        None, "Longer input is cut into segments of at most this many tokens. Default: what the model takes.", least=1
    )
    passage_tokens: int | None = option(
        None, "Longer documents are encoded in parts; the best part counts. Default: the head set's.", least=1
    )
    cache_bytes: int | None = option(
        None, "Memory for what was encoded. Default: one cache of 1 GiB for the process; 0 for none.", least=0
    )
    quantized_cache: Mapping[str, Any] | None = option(
        None, 'Keep what was encoded in fewer bits, as JSON: {"backend": "fp8"}. Joint layout only.', cli=str
    )
    allow_model_mismatch: bool = option(
        False, "Accept heads found for another model of the same shape.", flags="--allow-model-mismatch"
    )
    trust_remote_code: bool = option(False, "Let code from the model's repository run.", flags="--trust-remote-code")
    allow_pickle: bool = option(
        False, "Load weights that are not safetensors; unpickling can run code.", flags="--allow-pickle"
    )

    def __post_init__(self) -> None:
        if self.tp_size is not None and self.device_map is not None:
            raise InputError("pass either device_map or tp_size: both spread the model")

    def changed(self, **changes: Any) -> ScorerOptions:
        """A copy with other values.

        Raises
        ------
        TypeError
            Naming an option that does not exist, and those that do.
        """
        known = [one.name for one in fields(self)]
        for name in changes:
            if name not in known:
                raise TypeError(f"there is no option {name!r}: use some of {', '.join(known)}")
        return replace(self, **changes)
