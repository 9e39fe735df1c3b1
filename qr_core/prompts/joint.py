"""Prompt: a query and documents become token ids, with the token span of every document and of the query.

Spans come from construction, never from searching the text. The whole prompt is tokenised at once, as the model would
see it; where text of a document or query would become a control token, that prompt is tokenised again with the
tokenizer's control tokens switched off everywhere but in the template.

Knows nothing of models, heads or scores.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from qr_core.checks import encodable
from qr_core.errors import InputError, ModelLoadError
from qr_core.prompts.templates import Template
from qr_core.types import Document

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Prompt:
    """Token ids and where things stand in them; positions count from 0, ends are exclusive.

    Attributes
    ----------
    ids : tuple of int
    document_spans : tuple of (int, int)
        For each document, in prompt order, its number, title and text. Never empty, never overlapping.
    query_start : int
        First token of the late instruction. From here to the end are the query's tokens (QRHead, section 3).
    starts, ends : NDArray
        Int64, shape (tokens,): the characters of each token in the prompt's string.
    text_starts : tuple of int
        For each document, where its text (after number and title) begins in the prompt's string.
    guarded : bool
        Whether it was tokenised with control tokens switched off, because a caller's text spelled one.
    """

    ids: tuple[int, ...]
    document_spans: tuple[tuple[int, int], ...]
    query_start: int
    starts: NDArray[np.int64] = field(repr=False, compare=False)
    ends: NDArray[np.int64] = field(repr=False, compare=False)
    text_starts: tuple[int, ...] = field(repr=False, compare=False)
    guarded: bool = field(default=False, repr=False, compare=False)

    @property
    def reach(self) -> int:
        """How many positions the prompt takes: one for each token."""
        return len(self.ids)

    def excess(self, limit: int | None, context: int | None) -> int:
        """How many tokens it is over `limit`, or positions over `context`; 0 when it fits both."""
        over = [0] if limit is None else [0, len(self.ids) - limit]
        return max(over if context is None else [*over, self.reach - context])

    def part_spans(self, document: int, parts: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Token spans of parts of one document's text.

        Parameters
        ----------
        document : int
            Its place in the prompt.
        parts : sequence of (start, end)
            Half-open character positions in its text, ascending, without overlap.

        Returns
        -------
        list of (int, int)
            A token that two parts share is the first one's; a part without a token of its own has an empty span.
        """
        base = self.text_starts[document]
        free, last = self.document_spans[document]
        spans = []
        for start, end in parts:
            first = max(free, int(np.searchsorted(self.ends[:last], base + start, side="right")))
            free = max(first, int(np.searchsorted(self.starts[:last], base + end, side="left")))
            spans.append((first, free))
        return spans


@dataclass(frozen=True)
class _Text:
    """The prompt as one string, and character positions in it."""

    string: str
    body: tuple[int, int]  # everything but the template's prefix and suffix
    documents: list[tuple[int, int]]  # number, title and text
    text_starts: list[int]
    data: list[tuple[int, int]]  # what came from the caller
    late: int


@dataclass(frozen=True)
class _Tokens:
    ids: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]


class PromptBuilder:
    """Builds prompts for one tokenizer and template.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        A fast tokenizer: spans need character offsets.
    template : Template

    Raises
    ------
    ModelLoadError
        When the tokenizer is not a fast one.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: Template) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ModelLoadError(
                f"{type(tokenizer).__name__} is a slow tokenizer without character offsets: "
                "convert it to a fast one (a tokenizer.json file) and save it in the model's folder"
            )
        self.template = template
        # Private copies: no truncation, no padding, raw offsets, and nobody else's settings.
        spec = json.loads(backend.to_str()) | {"truncation": None, "padding": None}
        self._leading = _leading_ids(spec) if template.adds_bos else []
        self._whole = Tokenizer.from_str(json.dumps(spec | {"post_processor": None}))
        controls = [token for token in spec["added_tokens"] if not _is_blank(token)]
        bare = spec | {"post_processor": None, "added_tokens": [t for t in spec["added_tokens"] if _is_blank(t)]}
        self._without_controls = Tokenizer.from_str(json.dumps(bare))
        self._continuing = Tokenizer.from_str(json.dumps(_without_first_blank(bare)))
        self._control_ids = {token["id"] for token in controls}
        unknown = getattr(tokenizer, "unk_token_id", None)
        self._unknown_id = -1 if unknown is None else int(unknown)

    def build(self, queries: Sequence[str], documents: Sequence[Document]) -> list[Prompt]:
        """One prompt per query over the same `documents`, in the order given; all share the tokens before the query.

        Lone surrogates, which no tokenizer accepts, become U+FFFD.

        Raises
        ------
        InputError
            When the tokens before the query differ between queries, because the tokenizer merges them with the query.
        """
        texts = [self._compose(query, documents) for query in queries]
        encoded = [self._encode(self._whole, text.string) for text in texts]
        guarded = any(self._offenders(tokens, text).size for tokens, text in zip(encoded, texts, strict=True))
        if guarded:
            encoded = [self._encode_guarded(text) for text in texts]
        prompts = [
            replace(self._place(tokens, text), guarded=guarded) for tokens, text in zip(encoded, texts, strict=True)
        ]
        if len({prompt.ids[: prompt.query_start] for prompt in prompts}) > 1:
            raise InputError("this tokenizer makes the documents' tokens depend on the query: it is not supported")
        return prompts

    def wrap(self, data: str) -> list[int]:
        """Ids of the template's prefix, `data` and suffix alone; `data` becomes no control token."""
        return self.wrap_part(data, 0, 0)[0]

    def wrap_part(self, data: str, start: int, end: int) -> tuple[list[int], tuple[int, int]]:
        """As `wrap`, and the half-open token span of `data[start:end]`."""
        string = f"{self.template.prefix}{encodable(data)}{self.template.suffix}"
        body = (len(self.template.prefix), len(self.template.prefix) + len(data))
        text = _Text(string, body, [], [], [body], body[1])
        tokens = self._encode(self._whole, string)
        if self._offenders(tokens, text).size:
            tokens = self._encode_guarded(text)
        first = int(np.searchsorted(tokens.ends, body[0] + start, side="right"))
        last = int(np.searchsorted(tokens.starts, body[0] + end, side="left"))
        shift = len(self._leading)
        return [*self._leading, *tokens.ids.tolist()], (first + shift, max(first, last) + shift)

    def _place(self, tokens: _Tokens, text: _Text) -> Prompt:
        """Turn character spans into token spans; a token shared with what follows a document is the document's."""
        spans = []
        free = 0
        for start, end in text.documents:
            first = max(free, int(np.searchsorted(tokens.ends, start, side="right")))
            free = max(first, int(np.searchsorted(tokens.starts, end, side="left")))
            spans.append((first, free))
        query_start = max(free, int(np.searchsorted(tokens.ends, text.late, side="right")))
        shift = len(self._leading)
        nowhere = np.zeros(shift, dtype=np.int64)
        return Prompt(
            ids=(*self._leading, *tokens.ids.tolist()),
            document_spans=tuple((start + shift, end + shift) for start, end in spans),
            query_start=query_start + shift,
            starts=np.concatenate([nowhere, tokens.starts]),
            ends=np.concatenate([nowhere, tokens.ends]),
            text_starts=tuple(text.text_starts),
        )

    def lengths(self, documents: Sequence[Document]) -> list[int]:
        """How many tokens each document takes in a prompt, at most: number, title, text and separator."""
        found = []
        for number, document in enumerate(documents, start=1):  # one by one: batches start threads, which forks break
            title = "" if document.title is None else f"{document.title}\n"
            piece = encodable(f"{self.template.separator}[{number}] {title}{document.text}")
            ids = self._whole.encode(piece, add_special_tokens=False).ids
            if not self._control_ids.isdisjoint(ids):
                ids = self._spelled_out(self._encode(self._continuing, piece), piece, 0).ids.tolist()
            found.append(len(ids) + 1)  # the one that a neighbour might not share here
        return found

    def _compose(self, query: str, documents: Sequence[Document]) -> _Text:
        template = self.template
        pieces = [template.prefix, template.introduction]
        length = sum(map(len, pieces))
        spans: list[tuple[int, int]] = []
        data: list[tuple[int, int]] = []
        text_starts = []

        def add(piece: str) -> None:
            nonlocal length
            pieces.append(piece)
            length += len(piece)

        for number, document in enumerate(documents, start=1):
            add(template.separator)
            start = length
            add(f"[{number}] ")
            begin = length
            if document.title is not None:
                add(encodable(f"{document.title}\n"))
            text_starts.append(length)
            add(encodable(document.text))
            data.append((begin, length))
            spans.append((start, length))
        add(template.separator)
        late = length
        add(f"{template.late_instruction}{template.separator}{template.query_label} ")
        begin = length
        add(encodable(query))
        data.append((begin, length))
        body = (len(template.prefix), length)
        add(template.suffix)
        return _Text("".join(pieces), body, spans, text_starts, data, late)

    @staticmethod
    def _encode(tokenizer: Tokenizer, string: str) -> _Tokens:
        encoding = tokenizer.encode(string, add_special_tokens=False)
        offsets = np.asarray(encoding.offsets, dtype=np.int64).reshape(-1, 2)
        return _Tokens(np.asarray(encoding.ids, dtype=np.int64), offsets[:, 0], offsets[:, 1])

    def _offenders(self, tokens: _Tokens, text: _Text) -> NDArray[np.intp]:
        """Indices of control tokens that touch a caller's text. An unknown character's token is none."""
        candidates = np.flatnonzero(np.isin(tokens.ids, list(self._control_ids)))
        begins, ends = np.array(text.data).T  # in ascending order, without overlap
        nearest = np.minimum(np.searchsorted(ends, tokens.starts[candidates], side="right"), len(ends) - 1)
        inside = (tokens.ends[candidates] > begins[nearest]) & (tokens.starts[candidates] < ends[nearest])
        candidates = candidates[inside]
        unknown = self._whole.id_to_token(self._unknown_id) if self._unknown_id >= 0 else None
        keep = [
            i
            for i in candidates
            if tokens.ids[i] != self._unknown_id or text.string[tokens.starts[i] : tokens.ends[i]] == unknown
        ]
        return np.asarray(keep, dtype=np.intp)

    def _encode_guarded(self, text: _Text) -> _Tokens:
        """Tokenise with control tokens recognised in the template's prefix and suffix only.

        The text between two control tokens is tokenised in one piece, as it is when the tokenizer splits at them.
        """
        begin, end = text.body
        cuts = []  # (start, end, id) of the template's control tokens
        for start, piece in ((0, text.string[:begin]), (end, text.string[end:])):
            alone = self._encode(self._whole, piece)
            cuts += [
                (start + int(alone.starts[i]), start + int(alone.ends[i]), int(alone.ids[i]))
                for i in np.flatnonzero(np.isin(alone.ids, list(self._control_ids)))
            ]
        parts: list[_Tokens] = []
        place = 0
        for start, stop, control in [*cuts, (len(text.string), len(text.string), -1)]:
            tokenizer = self._continuing if place else self._without_controls
            run = self._encode(tokenizer, text.string[place:start])
            parts.append(self._spelled_out(run, text.string, place))
            if control >= 0:
                parts.append(_Tokens(np.array([control]), np.array([start]), np.array([stop])))
            place = stop
        return _joined(parts)

    def _spelled_out(self, run: _Tokens, string: str, place: int) -> _Tokens:
        """`run` moved to `place`, with any control token its vocabulary still yields spelled by character."""
        parts = []
        for i, token in enumerate(run.ids):
            start, end = int(run.starts[i]) + place, int(run.ends[i]) + place
            if int(token) not in self._control_ids or int(token) == self._unknown_id:
                parts.append(_Tokens(run.ids[i : i + 1], np.array([start]), np.array([end])))
                continue
            for at in range(start, end):
                one = self._encode(self._continuing, string[at])
                parts.append(_Tokens(one.ids, one.starts * 0 + at, one.ends * 0 + at + 1))
        return _joined(parts)


def _joined(parts: Sequence[_Tokens]) -> _Tokens:
    if not parts:
        empty = np.zeros(0, dtype=np.int64)
        return _Tokens(empty, empty, empty)
    return _Tokens(
        np.concatenate([p.ids for p in parts]),
        np.concatenate([p.starts for p in parts]),
        np.concatenate([p.ends for p in parts]),
    )


def _is_blank(token: Mapping[str, Any]) -> bool:
    """Whether an added token is mere white space, such as runs of blanks or line breaks: text like any other."""
    return not token["special"] and not token["content"].replace("\u2581", "").strip()


def _without_first_blank(spec: Any) -> Any:
    """A tokenizer's description for text that does not start the prompt: Metaspace adds no blank before it."""
    if isinstance(spec, list):
        return [_without_first_blank(part) for part in spec]
    if not isinstance(spec, dict):
        return spec
    if spec.get("type") == "Metaspace" and spec.get("prepend_scheme") == "first":
        return spec | {"prepend_scheme": "never"}
    return {key: value if key == "model" else _without_first_blank(value) for key, value in spec.items()}


def _leading_ids(spec: Mapping[str, Any]) -> list[int]:
    """The ids a tokenizer puts before a text of its own accord (begin of text, as a rule)."""
    tokenizer = Tokenizer.from_str(json.dumps(spec))
    with_special = tokenizer.encode("a", add_special_tokens=True).ids
    without = tokenizer.encode("a", add_special_tokens=False).ids
    for lead in range(len(with_special) - len(without) + 1):
        if with_special[lead : lead + len(without)] == without:
            return list(with_special[:lead])
    return []
