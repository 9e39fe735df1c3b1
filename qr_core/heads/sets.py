"""Head sets: which attention heads score documents, where they were found, and for which model and prompt.

A head set belongs to a model and to the template it was found under. The sets published with the paper ship as JSON
files in `published/`; a model folder may carry its own as `qrhead_heads.json`.

Knows nothing of weights or tokens: a model is its name, its revision and the shape in its config.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationError, model_validator

from qr_core.checks import encodable
from qr_core.errors import HeadSetError
from qr_core.files.replace import write_named
from qr_core.heads.pairs import Pair
from qr_core.heads.parts import HeadShape, Index, Provenance, Score, Strict, TemplateStrings
from qr_core.prompts.templates import TEMPLATES, Template
from qr_core.types import Layout

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FOLDER_FILE = "qrhead_heads.json"
"""A head set under this name in a model's folder is that model's default."""

MAX_FILE_BYTES = 16 * 2**20
_TRIPLE = re.compile(r"\[\n\s+(\d+),\n\s+(\d+),\n\s+([^\s\]]+)\n\s+\]")
"""A head in indented JSON. Text in strings has no bare line breaks, so it cannot look like one."""


class HeadSet(Strict):
    """Heads of one model under one template, with their provenance.

    Attributes
    ----------
    model : str
        Hub id, or the name of a local model.
    revision : str, optional
        Revision of the model the heads were found in; any revision when absent.
    config : HeadShape
        Shape of that model.
    template : str
        `chat`, `reference`, `plain`, or another of `qr_core.prompts.TEMPLATES`.
    template_strings : TemplateStrings, optional
        Required for `reference`.
    template_arguments : dict, optional
        What the chat template was rendered with (`date_string`, `enable_thinking`); recorded for `chat`.
    layout : str
        `joint`: all documents in one prompt, each seeing those before it. `independent`: each encoded on its own.
        `late`: the query as well; they meet in the layers of these heads only.
    criterion : str
        How heads were ranked.
    data : str
        What they were ranked on.
    source : str, optional
        Where the list comes from.
    heads : tuple of (layer, head, score)
        Counted from 0, best first; the score is None where it was not published. A head listed twice counts once.
    calibrate : bool
        Whether the scores of these heads gain from subtracting the content-free query.
    max_prompt_tokens : int, optional
        Longest prompt that these heads are good for, where that is less than the model's context; longer input is
        ranked in several prompts.
    passage_tokens : int, optional
        Longest document that these heads are good for; a longer one is scored in parts, and the best part counts.
    length_exponent : float
        A document's mass is divided by its tokens to this power, in [0, 1]: more tokens get more mass, whatever they
        say. 0, as published, divides by nothing.
    default : bool
        Whether this set is used for its model when none is named.
    provenance : Provenance, optional
        How `qr_core.detection.detect` found it.
    """

    model: str
    revision: str | None = None
    config: HeadShape
    template: str
    template_strings: TemplateStrings | None = None
    template_arguments: dict[str, str | bool] | None = None
    layout: Layout = "joint"
    criterion: str
    data: str
    source: str | None = None
    heads: tuple[tuple[Index, Index, Score | None], ...] = Field(min_length=1)
    calibrate: bool = True
    max_prompt_tokens: Annotated[int, Field(gt=0, strict=True)] | None = None
    passage_tokens: Annotated[int, Field(gt=0, strict=True)] | None = None
    length_exponent: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    default: bool = False
    provenance: Provenance | None = None

    def __init__(self, /, **fields: Any) -> None:
        """Check the fields.

        Raises
        ------
        HeadSetError
            Naming the first field at fault.
        """
        try:
            super().__init__(**fields)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            message = str(first["msg"]).removeprefix("Value error, ")
            raise HeadSetError(f"not a valid head set: {f'{place}: ' if place else ''}{message}") from error

    @model_validator(mode="before")
    @classmethod
    def _record_arguments(cls, fields: Any) -> Any:
        """A set without template arguments gets those that its prompts will be made with."""
        if not isinstance(fields, dict) or fields.get("template") not in TEMPLATES:
            return fields
        arguments = dict(TEMPLATES[fields["template"]].arguments)
        if not arguments or fields.get("template_arguments") is not None:
            return fields
        return {**fields, "template_arguments": arguments}

    @model_validator(mode="after")
    def _check(self) -> HeadSet:
        TEMPLATES.check(self.template)
        if TEMPLATES[self.template].needs_strings and self.template_strings is None:
            raise ValueError(f"template {self.template!r} needs template_strings (prefix, suffix, separator)")
        judged = self.provenance.scores if self.provenance is not None else ()
        for layer, head in [*self.pairs(), *((layer, head) for layer, head, _ in judged)]:
            if layer >= self.config.layers or head >= self.config.heads:
                raise ValueError(f"head {layer}-{head} is outside the model: it has {self.config.range}")
        return self

    def prompt_template(self, tokenizer: PreTrainedTokenizerBase) -> Template:
        """The template that these heads were found under, for a tokenizer.

        Raises
        ------
        ModelLoadError
            When the tokenizer has no usable chat template, and this is one.
        """
        strings = {} if self.template_strings is None else self.template_strings.model_dump()
        return TEMPLATES[self.template].make(tokenizer, strings, self.template_arguments or {})

    def pairs(self) -> list[Pair]:
        """Its heads as (layer, head), best first, each once."""
        return list(dict.fromkeys((layer, head) for layer, head, _ in self.heads))

    def with_pairs(self, pairs: Iterable[Pair]) -> HeadSet:
        """The same set with other heads, without scores and provenance."""
        return self.model_copy(update={"heads": tuple((*pair, None) for pair in pairs), "provenance": None})

    @property
    def deepest(self) -> int:
        """The deepest layer that has a head in this set."""
        return max(layer for layer, _ in self.pairs())

    def by_layer(self) -> dict[int, list[int]]:
        """Heads of each layer, in ascending order, each once."""
        found: dict[int, list[int]] = {}
        for layer, head in sorted(self.pairs()):
            found.setdefault(layer, []).append(head)
        return found

    @classmethod
    def from_json(cls, text: str, origin: str) -> HeadSet:
        """Parse and check a head set; `origin` names it in errors.

        Raises
        ------
        HeadSetError
            Naming the field at fault.
        """
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:  # malformed, too deep, or a number of thousands of digits
            raise HeadSetError(f"head set {origin} is not valid JSON: {error}") from error
        if not isinstance(fields, dict):
            raise HeadSetError(f"head set {origin} is not a JSON object")
        try:
            return cls(**fields)
        except HeadSetError as error:
            raise HeadSetError(f"{origin}: {error}") from error

    @classmethod
    def load(cls, name_or_file: str | Path) -> HeadSet:
        """A published set by name (`llama-3.1-8b-instruct/nq`), or one from a JSON file.

        Raises
        ------
        HeadSetError
            When there is neither, or the file is not a valid head set.
        """
        name = str(name_or_file)
        if name in published():
            return published()[name]
        path = Path(name_or_file)
        try:
            with path.open("rb") as file:
                raw = file.read(MAX_FILE_BYTES + 1)
        except (OSError, ValueError) as error:
            raise HeadSetError(
                f"no head set {name!r}: it is neither a readable file nor a published set ({', '.join(published())})"
            ) from error
        if len(raw) > MAX_FILE_BYTES:
            raise HeadSetError(f"head set {name} is larger than {MAX_FILE_BYTES} bytes: not a head set")
        return cls.from_json(raw.decode("utf-8", errors="replace"), name)

    def save(self, path: str | Path) -> None:
        """Write the set as JSON, one head a line; what was there stays until it is whole.

        Raises
        ------
        InputError
            When the file cannot be written.
        """
        body = json.dumps(self.model_dump(exclude_none=True), indent=2, ensure_ascii=False)
        body = _TRIPLE.sub(r"[\1, \2, \3]", body)
        write_named(path, f"{encodable(body)}\n")


@cache
def published() -> dict[str, HeadSet]:
    """The sets that ship with this package, by name."""
    found = {}
    root = files("qr_core.heads").joinpath("published")
    for folder in sorted((f for f in root.iterdir() if f.is_dir()), key=lambda f: f.name):
        for file in sorted((f for f in folder.iterdir() if f.name.endswith(".json")), key=lambda f: f.name):
            name = f"{folder.name}/{file.name.removesuffix('.json')}"
            found[name] = HeadSet.from_json(file.read_text(encoding="utf-8"), name)
    return found
