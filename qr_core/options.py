"""Options: what a scorer is made with. One list for Python, the adapters, the command line, the server and all runs.

A new option is one field here and its use. Knows nothing of models, nor of the places that offer the options.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qr_core.checks import check_ellipsis, check_one_of, check_share, check_whole_number
from qr_core.errors import InputError
from qr_core.fields import Options, json_object, option, options_class
from qr_core.types import Layout, Order

__all__ = ["Options", "PruneOptions", "ScorerOptions", "option", "options_class"]

if TYPE_CHECKING:
    import torch

    from qr_core.cache.documents import DocumentCache
    from qr_core.heads.sets import HeadSet
    from qr_core.text.chunking import TextFormat


_ALL_TOGETHER = "the processes that torchrun started must make the same calls: use it from Python"
_NO_HEADS = "heads are what it looks for; --like names a set whose template it uses"
_NO_ORDER = "parts of a text come in no retriever's order"
_NOT_MEASURED = "the benchmark's caches are its own, without bound, so that each variant finds what it should"


@options_class
class ScorerOptions(Options):
    """Everything that `QRScorer.from_pretrained` takes.

    Attributes
    ----------
    model : str or Path, optional
        Hub id or folder of a decoder, or of an encoder (in the late layout), or one inside this package, which needs
        no network: `embedded` (the default) or `embedded-fast` (see `qr_core.mini`).
    heads : str, Path or HeadSet, optional
        A published set's name (`qrhead heads` lists them), a head-set file, `"all"` for every head (In-Context
        Re-ranking) outside layers with a sliding window, if there are such, or pairs such as `"13-18,8-11"`
        (layer-head, from 0). By default the model's own set.
    template : str, optional
        `chat`, `reference`, `plain`, or another registered one; by default the head set's.
    layout : str, optional
        `joint`: all documents share one prompt, each seeing those before it. `independent`: each is encoded on its own,
        so that cost grows linearly and scores do not depend on order (see `qr_core.reading.independent`). `late`: the
        query is, too, and both meet in the layers that are read only, so that a further query costs next to nothing;
        the only one for encoders (see `qr_core.reading.late`). By default the head set's; heads found under another
        one score less well.
    document_cache : DocumentCache, str or Path, optional
        With the independent and the late layout: where documents' keys and values are kept, or a folder to keep them in
        beside memory. By default 1 GiB of memory, shared by all scorers of the process that say nothing of caches.
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
    calibration : str, optional
        How masses are calibrated where they are: `null-query`, or another of
        `qr_core.ranking.calibration.CALIBRATIONS`.
    retrieval_weight : float
        How much the order that documents came in counts beside the attention on them, from 0 (attention alone) to 1
        (their order alone); see `qr_core.ranking.fusion`. Pruning does not use it: units of a text come in no
        retriever's order.
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
        all scorers of the process share one cache of 1 GiB, and another for documents encoded on their own. With a
        number this one has caches of its own, together of at most that many bytes; with 0 it keeps nothing, but for
        what it is given as `document_cache`.
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

    PANEL = "Scorer"

    model: str | Path | None = option(None, "Hub id, folder, embedded or embedded-fast. Default: embedded.", cli=str)
    heads: str | Path | HeadSet | None = option(
        None,
        'A published set, a head-set file, "13-18,8-11" (layer-head), or "all". Default: its own.',
        cli=str,
        absent={"detect": _NO_HEADS},
    )
    template: str | None = option(
        None, "Prompt template. Default: the head set's.", registry="qr_core.prompts.templates.registry:TEMPLATES"
    )
    layout: Layout | None = option(
        None,
        "independent: documents encoded independently, in linear time; late: the query too. Default: the head set's.",
    )
    document_cache: DocumentCache | str | Path | None = option(
        None,
        "Folder for encoded documents, with --layout independent. Private data.",
        cli=Path,
        plain=str,
        absent={"bench": _NOT_MEASURED},
    )
    revision: str | None = option(None, "Branch, tag or commit on the hub.")
    device: str | torch.device | None = option(None, "cpu, cuda, cuda:1, mps. Default: the best there is.", cli=str)
    device_map: str | Mapping[str, str | int] | None = option(
        None,
        "Spread each copy of the model over devices, for example auto. Needs accelerate.",
        cli=str,
        plain=str | dict[str, str | int],
    )
    tp_size: int | None = option(
        None, "Spread each layer over this many processes.", least=1, absent={"cli": _ALL_TOGETHER}
    )
    dtype: str | torch.dtype = option("auto", "auto, float32, bfloat16 or float16.", cli=str)
    calibrate: bool | None = option(
        None,
        "Subtract the N/A query. Default: the head set's.",
        flags="--calibrate/--no-calibrate",
        absent={"detect": "it judges heads by raw or by calibrated scores, as --calibrated/--raw says"},
    )
    calibration: str | None = option(
        None,
        "How scores are calibrated, where they are. Default: null-query.",
        registry="qr_core.ranking.calibration:CALIBRATIONS",
        absent={"detect": "it judges heads by raw scores, or by those of the null query"},
    )
    retrieval_weight: float = option(
        0.0,
        "How much the order that documents came in counts beside attention, 0 to 1.",
        least=0,
        most=1,
        absent={"prune": _NO_ORDER, "ask": _NO_ORDER, "detect": "it judges heads by their attention alone"},
    )
    filter_tokens: bool = option(
        True,
        "Drop each document's lowest tokens.",
        flags="--token-filter/--no-token-filter",
        absent={"detect": "the calibrated scores that it judges heads by are filtered, the raw ones are not"},
    )
    max_prompt_tokens: int | None = option(
        None, "Longer input is cut into segments of at most this many tokens. Default: what the model takes.", least=1
    )
    passage_tokens: int | None = option(
        None,
        "Longer documents are encoded in parts; the best part counts. Default: the head set's.",
        least=1,
        absent={"detect": "it judges heads by whole documents"},
    )
    cache_bytes: int | None = option(
        None,
        "Memory for what was encoded. Default: one cache of 1 GiB for the process; 0 for none.",
        least=0,
        absent={
            "rank-many": "nothing is kept from one part to the next, so that results do not depend on who ranks what",
            "detect": "each example is encoded once",
            "bench": _NOT_MEASURED,
        },
    )
    quantized_cache: Mapping[str, Any] | None = option(
        None,
        'Keep what was encoded in fewer bits, as JSON: \'{"backend": "fp8"}\'. Joint layout only.',
        cli=str,
        parse=json_object,
        plain=dict[str, Any],
    )
    allow_model_mismatch: bool = option(
        False,
        "Accept heads found for another model of the same shape.",
        absent={"detect": _NO_HEADS},
    )
    trust_remote_code: bool = option(False, "Let code from the model's repository run.")
    allow_pickle: bool = option(False, "Load weights that are not safetensors; unpickling can run code.")

    def __post_init__(self) -> None:
        if self.tp_size is not None and self.device_map is not None:
            raise InputError("pass either device_map or tp_size: both spread the model")

    def check(self, *names: str, known: Collection[str] | None = None) -> None:
        """Refuse values that no scorer can have.

        Parameters
        ----------
        names : str
            Of options that are meant to change; with `known`, those that may.

        Raises
        ------
        InputError
        """
        for name in names:
            if known is not None and name not in known:
                raise InputError(f"{name} cannot be changed: use some of {', '.join(known)}, or make a new scorer")
        for name in ("tp_size", "max_prompt_tokens", "passage_tokens"):
            check_whole_number(name, getattr(self, name))
        check_whole_number("cache_bytes", self.cache_bytes, least=0)
        check_share("retrieval_weight", self.retrieval_weight)
        if self.layout is not None:
            check_one_of("layout", self.layout, Layout)

    def completed(self, heads: HeadSet) -> ScorerOptions:
        """A copy with what a head set says where the caller says nothing.

        Raises
        ------
        InputError
            When a cache does not go with the layout.
        """
        layout = self.layout or heads.layout
        if layout == "joint" and self.document_cache is not None:
            raise InputError(
                "a document cache is for layout='independent' or 'late': joint prompts are encoded as a whole"
            )
        if layout != "joint" and self.quantized_cache is not None:
            raise InputError("a quantised cache is for layout='joint': bound document_cache instead")
        found: dict[str, Any] = {"layout": layout}
        if self.calibrate is None:
            found["calibrate"] = heads.calibrate
        if layout == heads.layout:  # limits found under another layout say nothing
            for name in ("max_prompt_tokens", "passage_tokens"):
                if getattr(self, name) is None:
                    found[name] = getattr(heads, name)
        return self.changed(**found)


@options_class
class PruneOptions(Options):
    """Everything that `QRScorer.prune` takes beside query and documents.

    Attributes
    ----------
    max_tokens : int, optional
        Most tokens of what is kept. Never exceeded; a unit that does not fit is passed over.
    top_k : int, optional
        At most this many of the best units; those that do not fit `max_tokens` are not made up for.
    min_relevance : float, optional
        Least relevance of a unit: its share, in [0, 1], of all positive scores of its last round.
    min_keep : int
        At least this many of the best units are kept whatever their relevance, if `max_tokens` and `top_k` allow.
    unit : str
        `document` (of one text: its passages, or the sessions of a chat), `paragraph`, `sentence`, `turn`, or another
        registered one.
    text_format : str
        `text`, `markdown` (headings, lists, tables and code fences stay whole) or `chat` (see `chunking.units`).
    headings : bool
        Keep the headings that kept parts of Markdown stand under. A part that does not fit with them is left out.
    titles : bool
        Begin each kept document with its title. A document that does not fit with it is left out.
    ellipsis : str, optional
        Put where something was left out, within the budget; at most 100 characters.
    tokenizer : tokenizer or function, optional
        What `max_tokens` is counted with: a Hugging Face tokenizer (the generator's), or a function from a text to a
        number. By default the scorer's own.
    order : str
        As for `QRScorer.rank`.
    """

    PANEL = "Pruning"

    max_tokens: int | None = option(None, "Most tokens to keep.")
    top_k: int | None = option(None, "Most parts to keep.")
    min_relevance: float | None = option(None, "Least share, 0 to 1, of the attention on all.")
    min_keep: int = option(0, "Keep at least this many of the best, whatever their relevance.")
    unit: str = option(
        "sentence", "What is kept or left out as a whole; document: a passage.", registry="qr_core.text.units:UNITS"
    )
    text_format: TextFormat = option("text", "text, markdown or chat.", absent={"cli": "--input-format says it"})
    headings: bool = option(False, "Keep the Markdown headings of kept parts.")
    titles: bool = option(False, "Begin kept documents with their titles.", absent={"cli": "it prunes one text"})
    ellipsis: str | None = option(None, "Mark where something was left out, for example '[...]'.")
    tokenizer: Any = option(None, "What counts tokens.", absent={"cli": "it takes the name of one"})
    order: Order = option("given", "reversed: the first document stands nearest the query.", absent={"cli": "one text"})

    def __post_init__(self) -> None:
        check_ellipsis("ellipsis", self.ellipsis)
