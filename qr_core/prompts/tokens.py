"""Tokens: text becomes token ids with their characters, and nothing that a caller wrote becomes a control token.

A prompt's string is tokenised at once, as the model would see it. Where text of a document or query spells a control
token, that string is tokenised again with control tokens switched off everywhere but in the template's own parts.

Knows nothing of documents and queries: a text says which of its characters came from a caller.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from qr_core.errors import ModelLoadError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Text:
    """A string to tokenise.

    Attributes
    ----------
    string : str
    body : (int, int)
        Everything but the template's prefix and suffix.
    data : sequence of (int, int)
        What came from the caller, ascending, without overlap.
    """

    string: str
    body: tuple[int, int]
    data: Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Tokens:
    """Token ids and where each stands in its string; int64, shape (tokens,)."""

    ids: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        """How many."""
        return len(self.ids)

    def moved(self, by: int) -> Tokens:
        """The same tokens, as many characters further on."""
        return Tokens(self.ids, self.starts + by, self.ends + by)


class Tokeniser:
    """One tokenizer's private copies: no truncation, no padding, raw offsets, and nobody else's settings.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        A fast tokenizer: spans need character offsets.
    adds_bos : bool
        Whether the ids that it puts before a text are wanted; they are `leading` then. Those it puts after a text are
        `trailing`, for models that want them.

    Raises
    ------
    ModelLoadError
        When the tokenizer is not a fast one.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, adds_bos: bool) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ModelLoadError(
                f"{type(tokenizer).__name__} is a slow tokenizer without character offsets: "
                "convert it to a fast one (a tokenizer.json file) and save it in the model's folder"
            )
        self._source: str = backend.to_str()
        self._whole = Tokenizer.from_str(self._source)
        self._whole.no_truncation()
        self._whole.no_padding()
        leading, self.trailing = _framing_ids(self._whole)
        self.leading = leading if adds_bos else []
        self._whole.post_processor = None
        added = self._whole.get_added_tokens_decoder()
        self.control_ids = {number for number, token in added.items() if not _is_blank(token.special, token.content)}
        unknown = getattr(tokenizer, "unk_token_id", None)
        self._unknown_id = -1 if unknown is None else int(unknown)

    @cached_property
    def _alone(self) -> Tokenizer:
        """For a text that continues a prompt."""
        return Tokenizer.from_str(json.dumps(_without_any_blank(self._bare())))

    # The others are for texts that spell control tokens, which are few: each is a vocabulary of its own.

    @cached_property
    def _without_controls(self) -> Tokenizer:
        return Tokenizer.from_str(json.dumps(self._bare()))

    @cached_property
    def _continuing(self) -> Tokenizer:
        return Tokenizer.from_str(json.dumps(_without_first_blank(self._bare())))

    @cached_property
    def _spelling(self) -> Tokenizer:
        """For single characters, none of which becomes a control token."""
        spelt = _without_pieces(_without_first_blank(self._bare()), self.control_ids - {self._unknown_id})
        return Tokenizer.from_str(json.dumps(spelt))

    def _bare(self) -> dict[str, Any]:
        """The tokenizer's description, without control tokens."""
        spec = json.loads(self._source)
        blank = [token for token in spec["added_tokens"] if _is_blank(token["special"], token["content"])]
        return {**spec, "truncation": None, "padding": None, "post_processor": None, "added_tokens": blank}

    def encode(self, string: str) -> Tokens:
        """As the model would see it, control tokens among them."""
        return _encode(self._whole, string)

    def count(self, piece: str) -> int:
        """How many tokens a caller's text takes in a prompt, none of them a control token."""
        ids = self._whole.encode(piece, add_special_tokens=False).ids
        if self.control_ids.isdisjoint(ids):
            return len(ids)
        return len(self._spelled_out(_encode(self._continuing, piece), piece, 0).ids)

    def encode_data(self, text: str) -> Tokens:
        """Tokens of a caller's text that continues a prompt, none of them a control token."""
        tokens = _encode(self._alone, text)
        if self.control_ids.isdisjoint(tokens.ids.tolist()):
            return tokens
        return self._spelled_out(tokens, text, 0)

    def offenders(self, tokens: Tokens, text: Text) -> NDArray[np.intp]:
        """Indices of control tokens that touch a caller's text. An unknown character's token is none."""
        candidates = np.flatnonzero(np.isin(tokens.ids, list(self.control_ids)))
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

    def encode_guarded(self, text: Text) -> Tokens:
        """Tokenise with control tokens recognised in the template's prefix and suffix only.

        The text between two control tokens is tokenised in one piece, as it is when the tokenizer splits at them.
        """
        begin, end = text.body
        cuts = []  # (start, end, id) of the template's control tokens
        for start, piece in ((0, text.string[:begin]), (end, text.string[end:])):
            alone = _encode(self._whole, piece)
            cuts += [
                (start + int(alone.starts[i]), start + int(alone.ends[i]), int(alone.ids[i]))
                for i in np.flatnonzero(np.isin(alone.ids, list(self.control_ids)))
            ]
        parts: list[Tokens] = []
        place = 0
        for start, stop, control in [*cuts, (len(text.string), len(text.string), -1)]:
            tokenizer = self._continuing if place else self._without_controls
            run = _encode(tokenizer, text.string[place:start])
            parts.append(self._spelled_out(run, text.string, place))
            if control >= 0:
                parts.append(Tokens(np.array([control]), np.array([start]), np.array([stop])))
            place = stop
        return joined(parts)

    def _spelled_out(self, run: Tokens, string: str, place: int) -> Tokens:
        """`run` moved to `place`, with any control token its vocabulary still yields spelled by character."""
        parts = []
        for i, token in enumerate(run.ids):
            start, end = int(run.starts[i]) + place, int(run.ends[i]) + place
            if int(token) not in self.control_ids or int(token) == self._unknown_id:
                parts.append(Tokens(run.ids[i : i + 1], np.array([start]), np.array([end])))
                continue
            for at in range(start, end):
                # A character that is nothing but a control token is shown as one that cannot be shown.
                one = next(filter(len, (_encode(self._spelling, c) for c in (string[at], "\ufffd"))), _NOTHING)
                parts.append(Tokens(one.ids, one.starts * 0 + at, one.ends * 0 + at + 1))
        return joined(parts)


def _encode(tokenizer: Tokenizer, string: str) -> Tokens:
    encoding = tokenizer.encode(string, add_special_tokens=False)
    offsets = np.asarray(encoding.offsets, dtype=np.int64).reshape(-1, 2)
    return Tokens(np.asarray(encoding.ids, dtype=np.int64), offsets[:, 0], offsets[:, 1])


_NOTHING = Tokens(*(np.zeros(0, dtype=np.int64) for _ in range(3)))


def joined(parts: Sequence[Tokens]) -> Tokens:
    """One run of tokens after the other."""
    if not parts:
        return _NOTHING
    return Tokens(
        np.concatenate([p.ids for p in parts]),
        np.concatenate([p.starts for p in parts]),
        np.concatenate([p.ends for p in parts]),
    )


def _is_blank(special: bool, content: str) -> bool:
    """Whether an added token is mere white space, such as runs of blanks or line breaks: text like any other."""
    return not special and not content.replace("\u2581", "").strip()


def _without_first_blank(spec: Any) -> Any:
    """A tokenizer's description for text that does not start the prompt: Metaspace adds no blank before it."""
    if isinstance(spec, list):
        return [_without_first_blank(part) for part in spec]
    if not isinstance(spec, dict):
        return spec
    if spec.get("type") == "Metaspace" and spec.get("prepend_scheme") == "first":
        return spec | {"prepend_scheme": "never"}
    return {key: value if key == "model" else _without_first_blank(value) for key, value in spec.items()}


def _without_pieces(spec: Mapping[str, Any], ids: Set[int]) -> dict[str, Any]:
    """A tokenizer's description whose vocabulary does not yield `ids`: pieces get names that no text can guess."""
    model = dict(spec["model"])
    vocab = model["vocab"]
    if isinstance(vocab, list):  # Unigram: pieces with their scores, by id
        model["vocab"] = [[secrets.token_hex(), row[1]] if i in ids else row for i, row in enumerate(vocab)]
        return {**spec, "model": model}
    gone = {piece for piece, number in vocab.items() if number in ids}
    model["vocab"] = {secrets.token_hex() if piece in gone else piece: number for piece, number in vocab.items()}
    if "merges" in model:
        prefix = len(model.get("continuing_subword_prefix") or "")
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
        model["merges"] = [pair for pair in pairs if gone.isdisjoint((*pair, pair[0] + pair[1][prefix:]))]
    return {**spec, "model": model}


def _without_any_blank(spec: Any) -> Any:
    """A tokenizer's description for text that continues a prompt: nothing puts a blank before it."""
    if isinstance(spec, list):
        return [_without_any_blank(part) for part in spec]
    if not isinstance(spec, dict):
        return spec
    kind = spec.get("type")
    if kind == "Prepend":
        return {"type": "Sequence", "normalizers": []}
    if kind == "Metaspace":
        return spec | {"prepend_scheme": "never"}
    if kind == "ByteLevel":
        return spec | {"add_prefix_space": False}
    return {key: value if key == "model" else _without_any_blank(value) for key, value in spec.items()}


def _framing_ids(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The ids a tokenizer puts before and after a text of its own accord (begin of text, as a rule; separators)."""
    framed = tokenizer.encode("a", add_special_tokens=True).ids
    text = tokenizer.encode("a", add_special_tokens=False).ids
    for lead in range(len(framed) - len(text) + 1):
        if framed[lead : lead + len(text)] == text:
            return list(framed[:lead]), list(framed[lead + len(text) :])
    return [], []
