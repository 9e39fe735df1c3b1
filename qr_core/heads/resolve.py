"""Resolve: from what a caller names (a published set, a file, pairs, everything) to a head set that fits the model.

Knows nothing of weights or tokens: a model is its name, its revision and the shape in its config.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qr_core.attention.layers import layers_of, windows_of
from qr_core.errors import HeadSetError
from qr_core.heads.pairs import Pair, format_pairs, parse_pairs
from qr_core.heads.parts import HeadShape
from qr_core.heads.sets import FOLDER_FILE, HeadSet, published
from qr_core.prompts.templates import TEMPLATES

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

    from qr_core.options import ScorerOptions


def _listed(pairs: Sequence[Pair], model: str, shape: HeadShape, template: str, how: str) -> HeadSet:
    """A set from bare (layer, head) pairs, checked against `shape`."""
    wrong = [(layer, head) for layer, head in pairs if layer >= shape.layers or head >= shape.heads]
    if wrong:
        raise HeadSetError(f"heads outside the model: {format_pairs(wrong, ', ')}; {model} has {shape.range}")
    fields: dict[str, Any] = {"model": model, "config": shape, "template": template, "criterion": how, "data": "none"}
    if TEMPLATES[template].needs_strings:
        raise HeadSetError(
            f"template {template!r} needs the strings that a head set carries: pass a HeadSet or a head-set file "
            f"with template {template!r}"
        )
    return HeadSet(**fields, heads=tuple((layer, head, None) for layer, head in pairs))


def resolve_for(
    options: ScorerOptions, name: str, folder: str, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase
) -> tuple[HeadSet, str]:
    """`resolve` with a scorer's options.

    Parameters
    ----------
    name, folder : str
        The model's, and where it came from.
    """
    return resolve(
        options.heads,
        name,
        folder,
        options.revision,
        HeadShape.of(config),
        options.template,
        has_chat_template=bool(getattr(tokenizer, "chat_template", None)),
        bare=options.layout == "late" and _frames(tokenizer),
        allow_model_mismatch=options.allow_model_mismatch,
        near=windows_of(layers_of(config)) if options.heads == "all" else (),
    )


def resolve(
    heads: str | Path | HeadSet | None,
    model: str,
    folder: str,
    revision: str | None,
    shape: HeadShape,
    template: str | None,
    has_chat_template: bool,
    allow_model_mismatch: bool = False,
    near: Collection[int] = (),
    bare: bool = False,
) -> tuple[HeadSet, str]:
    """The head set that a caller means, and its name.

    Parameters
    ----------
    heads : str, Path, HeadSet or None
        A published name, a JSON file, `"all"` (every head: In-Context Re-ranking), pairs such as `"13-18,8-11"`, a
        set, or None for the model's own default.
    model, folder, revision, shape
        What was loaded: its name, the hub id or folder it came from, and its config's shape.
    template : str, optional
        The template the caller asks for; by default the set's own.
    has_chat_template : bool
        Decides the template of `"all"` and of bare pairs when the caller names none.
    bare : bool
        Whether it is `bare` then, where there is no chat template.
    near : collection of int
        Layers with a sliding window, whose heads `"all"` leaves out, unless all layers have one.

    Raises
    ------
    HeadSetError
        When no set is known, or it belongs to a model of another shape, another model or another template.
    InputError
        When there is no template of that name.
    """
    if template is not None:
        TEMPLATES.check(template)
    own = template or ("chat" if has_chat_template else "bare" if bare else "plain")
    listed: tuple[Sequence[Pair], str] | None = None
    if heads == "all":
        listed = shape.pairs(without=near) or shape.pairs(), "every head (In-Context Re-ranking)"
    elif isinstance(heads, str) and (pairs := parse_pairs(heads)):
        listed = pairs, "named by the caller"
    if listed is not None:
        found = _listed(listed[0], model, shape, own, listed[1])
        return _as_the_models_own(found, folder, template), str(heads)
    if heads is None:
        found, name = _default(model, folder, shape)
    elif isinstance(heads, HeadSet):
        found, name = heads, heads.model
    elif isinstance(heads, str | Path):
        found, name = HeadSet.load(heads), str(heads)
    else:
        raise HeadSetError(
            f"heads are of type {type(heads).__name__}: pass a name, a file, '13-18,8-11', 'all' or a HeadSet"
        )
    _check_belongs(found, name, model, revision, shape, allow_model_mismatch)
    if template is not None and template != found.template:
        raise HeadSetError(
            f"head set {name} was found under template {found.template!r} and does not hold under {template!r}: "
            "leave template out, or detect heads under the other one"
        )
    return found, name


def _as_the_models_own(found: HeadSet, folder: str, template: str | None) -> HeadSet:
    """Heads that were only named, read as a late set in the model's folder is: an encoder knows no other way."""
    file = Path(folder) / FOLDER_FILE
    own = HeadSet.load(file) if file.is_file() else None
    if own is None or own.layout != "late" or own.config != found.config or template not in (None, own.template):
        return found
    named = {"heads": found.heads, "criterion": found.criterion, "data": found.data, "provenance": None}
    return own.model_copy(update=named)


def _frames(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer ends texts by a token of its own, as those of encoders do: these know texts alone."""
    ids: list[int] = tokenizer("a").input_ids
    return len(ids) > 1 and ids[-1] in tokenizer.all_special_ids


def _default(model: str, folder: str, shape: HeadShape) -> tuple[HeadSet, str]:
    """The set in the model's folder, or the published default of this hub id."""
    own = Path(folder) / FOLDER_FILE
    if own.is_file():
        found, name = HeadSet.load(own), FOLDER_FILE.removesuffix(".json")
        # A folder is known by its path, which is no name; an embedded model may have several.
        return found if folder == model else found.model_copy(update={"model": model}), name
    for name, candidate in published().items():
        if candidate.model.lower() == model.lower() and candidate.default:
            return candidate, name
    alike = [name for name, candidate in published().items() if candidate.config == shape]
    hint = (
        f" Sets for a model of this shape: {', '.join(alike)}: name one with heads=... if it is that model."
        if alike
        else ""
    )
    raise HeadSetError(
        f"no heads are known for {model}.{hint} Find them with `qrhead detect`, or pass heads='all' (every head), "
        "pairs such as heads='13-18,8-11', or a head-set file for this model"
    )


def _check_belongs(
    found: HeadSet, name: str, model: str, revision: str | None, shape: HeadShape, allow_mismatch: bool
) -> None:
    if found.config != shape:
        raise HeadSetError(
            f"head set {name} is for {found.model} ({found.config}), but {model} has {shape}: "
            "use heads found for this model"
        )
    if allow_mismatch or Path(model).is_dir():  # a local folder is known by its config alone
        return
    if found.model.lower() != model.lower():
        raise HeadSetError(
            f"head set {name} is for {found.model}, not {model}: use heads found for this model, "
            "or pass allow_model_mismatch=True for a quantised copy or a fine-tune"
        )
    if found.revision is not None and found.revision != revision:
        raise HeadSetError(
            f"head set {name} is for revision {found.revision} of {model}, not {revision or 'the newest'}: "
            "pass that revision, or allow_model_mismatch=True"
        )
