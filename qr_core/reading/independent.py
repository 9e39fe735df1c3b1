"""Independent reading: documents that were encoded apart, after the instruction alone, and one query over all of them.

    instruction -> prefill, once                          \
    documents   -> cache, or prefill in batches            > one prefix -> probe -> calibrate -> mass per head and token
    query, N/A  -> at the positions after the longest one /

What a document's tokens look at, and so its keys and values, depends on the instruction and the document only. The
cost grows linearly with the number of documents, and scores do not depend on their order. It is another score than
that of the joint layout, where every document sees those before it.

Knows nothing of windows, of how tokens become scores, or of rankings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qr_core.attention import layers, rope
from qr_core.attention.capture import Capture
from qr_core.attention.prefill import chunk_rows, prefill, probe
from qr_core.attention.prefix import Prefix, joined
from qr_core.cache.documents import DocumentCache, Keys
from qr_core.cache.reads import ReadCache, make_room
from qr_core.heads.sets import HeadSet
from qr_core.model import loading as models
from qr_core.model.fingerprint import fingerprint
from qr_core.model.verify_independent import check_independent
from qr_core.prompts.independent import IndependentPrompt, IndependentPromptBuilder
from qr_core.prompts.joint import Prompt
from qr_core.ranking import scoring
from qr_core.reading.reader import Reader, TokenMasses
from qr_core.types import Document

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LAYOUT = "independent"
TOTAL_TOKENS = 131_072
"""Most tokens of one prompt by default: positions do not limit how many documents stand side by side, memory does."""
ROOM = 256
"""Tokens of a query (and what stands around it) for which documents are not copied again."""
REMEDY = "read documents in shorter parts with passage_tokens="
SHORTEST_SHARE = 0.75
"""Documents of a batch have at least this share of its longest one's tokens; the rest is padding."""
CPU_PART = 4
"""On a CPU a batch has a fourth of the rows that a chunk of a long prompt may have, which its caches hold better."""


class IndependentReader(Reader):
    """Reads prompts whose documents do not see each other; parameters and errors are those of `Reader`.

    Parameters
    ----------
    documents : DocumentCache
        Where documents' keys and values are kept.

    Raises
    ------
    HeadSetError
        Also when a layer up to the deepest selected one is chunked.
    """

    def __init__(
        self,
        model: models.SharedModel,
        prompts: IndependentPromptBuilder,
        heads: HeadSet,
        calibrate: bool,
        name: str,
        documents: DocumentCache,
    ) -> None:
        super().__init__(model, prompts, heads, calibrate, name)
        self.documents = documents
        layers.check_chunks(self.layers, heads.deepest, name)

    def build(
        self,
        query: str,
        documents: Sequence[Document],
        cache: ReadCache | None = None,  # noqa: ARG002
    ) -> tuple[Prompt, Prompt]:
        """The query's prompt and that of `N/A`; documents' tokens are remembered by the builder, not by `cache`."""
        return super().build(query, documents)

    def read_many(
        self,
        prompts: Sequence[tuple[Prompt, Prompt]],
        cache: ReadCache | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> list[TokenMasses]:
        """What every selected head pays every token before the query; see `Reader.read_many`.

        Raises
        ------
        InputError
            When a selected head's layer has a sliding window shorter than the prompt's reach.
        ModelLoadError
            When weights cannot be loaded or read, or the model cannot encode documents apart.
        NonFiniteError
            When the model's attention is NaN or infinite.
        MemoryLimitError
            When memory is short, in small pieces too.
        """
        return [self._read_one(asked, null, cache, progress) for asked, null in prompts]

    def _read_one(
        self, asked: Prompt, null: Prompt, cache: ReadCache | None, progress: Callable[[int], None] | None
    ) -> TokenMasses:
        if not isinstance(asked, IndependentPrompt) or not isinstance(null, IndependentPrompt):
            raise TypeError("an independent reader reads independent prompts")
        calibrated = self.calibrate and asked.ids != null.ids
        with self.model.lock, torch.inference_mode():
            reach = max(asked.reach, null.reach)
            layers.check_windows(self.layers, self.heads.by_layer(), reach, self.name, REMEDY)
            model = self.model.at_depth(self.heads.deepest)
            check_independent(model, self.heads.deepest, self.name)
            order = _own_order(asked)
            own = (asked.ids[: asked.instruction], *(_part(asked, n) for n in order))
            key = (LAYOUT, rope.regime(model, reach), own)
            size = 8 * asked.query_start
            columns = _columns(asked, order)
            with rope.held_to(model, reach):
                prefix: Prefix | None = cache.get(self.model, key) if cache is not None else None
                if prefix is not None and prefix.depth >= self.heads.deepest:
                    if progress:
                        progress(asked.query_start)
                else:
                    prefix = self._prefix(model, asked, order, reach, progress)
                    if cache is not None:
                        cache.put(self.model, key, prefix, prefix.bytes + size)
                raw = self._mass(model, prefix, asked, columns)
                null_mass: Tensor | None = None
                if calibrated:
                    # Where the query stands depends on the documents, which the key names.
                    null_key = (*key, null.ids[null.query_start :], tuple(self._heads.items()))
                    null_mass = cache.get(self.model, null_key) if cache is not None else None
                    if null_mass is None:
                        null_mass = self._mass(model, prefix, null, columns)
                        if cache is not None:
                            cache.put(self.model, null_key, null_mass, null_mass.numel() * 4 + size)
        back = columns.argsort()
        raw = raw[:, back]
        if null_mass is None:
            return TokenMasses(raw, raw, asked, False)
        return TokenMasses(scoring.calibrate(raw, null_mass[:, back]), raw, asked, True)

    def _prefix(
        self,
        model: PreTrainedModel,
        asked: IndependentPrompt,
        order: Sequence[int],
        reach: int,
        progress: Callable[[int], None] | None,
    ) -> Prefix:
        """Instruction and documents, the latter in `order`, each from the cache or encoded now."""
        deepest = self.heads.deepest
        mark, shared = fingerprint(model, self.model.config, deepest)
        keys = Keys(mark, deepest, asked.ids[: asked.instruction], rope.regime(model, reach))
        instruction = self._instruction(model, asked, keys, progress)
        texts = {keys.of(ids): ids for n in order if (ids := _part(asked, n))}
        found = self.documents.get({key: len(ids) for key, ids in texts.items()}, instruction, shared)
        missing = {key: ids for key, ids in texts.items() if key not in found}
        if progress:
            progress(sum(len(texts[key]) for key in found))
        new: dict[str, Prefix] = {}
        for batch in _batches(model, instruction.length, missing):
            new |= encode(model, instruction, {key: missing[key] for key in batch}, deepest)
            if progress:
                progress(sum(len(missing[key]) for key in batch))
        self.documents.put(new, shared)
        states = found | new
        return joined([instruction, *(states[keys.of(ids)] for n in order if (ids := _part(asked, n)))], ROOM)

    def _instruction(
        self, model: PreTrainedModel, asked: IndependentPrompt, keys: Keys, progress: Callable[[int], None] | None
    ) -> Prefix:
        """The instruction's states: a few tokens, kept in memory only."""
        ids, key = asked.ids[: asked.instruction], keys.of(())
        kept = self.documents.get({key: len(ids)}, Prefix((), ()), shared=False)
        if key not in kept:
            input_ids = torch.tensor([ids], device=model.device)
            kept = {key: prefill(model, input_ids, self.heads.deepest, progress=progress, make_room=make_room)}
            self.documents.put(kept, shared=False)
        return kept[key]

    def _mass(self, model: PreTrainedModel, prefix: Prefix, asked: IndependentPrompt, columns: Tensor) -> Tensor:
        """Raw mass of every selected head on every prefix token, float32, shape (heads, prefix tokens), on the CPU.

        `columns` says where in the prompt these tokens stand.
        """
        suffix = torch.tensor([asked.ids[asked.query_start :]], device=model.device)
        rows = suffix.shape[1]
        positions = torch.from_numpy(asked.positions()).int().to(model.device)
        own = torch.arange(asked.query_start, len(asked.ids))
        capture = Capture(
            heads={layer: torch.tensor(chosen) for layer, chosen in self.heads.by_layer().items()},
            row_weights=torch.full((1, rows), 1 / rows),
            stop_after=self.heads.deepest,
            windows=layers.windows_of(self.layers),
            positions=positions[torch.cat([columns, own])],
        )
        masses = probe(model, prefix, suffix, capture, positions[None, own].long())
        return torch.cat([masses[layer][0].cpu() for layer in sorted(masses)])


def encode(
    model: PreTrainedModel, instruction: Prefix, documents: dict[str, tuple[int, ...]], deepest: int
) -> dict[str, Prefix]:
    """Keys and values of documents in one batch, each after the `instruction` alone.

    Padding stands after a document, where causal attention never looks, and is dropped.

    Parameters
    ----------
    documents : dict
        Token ids, none empty.
    """
    longest = max(len(ids) for ids in documents.values())
    rows = [[*ids, *[0] * (longest - len(ids))] for ids in documents.values()]
    states = prefill(model, torch.tensor(rows, device=model.device), deepest, after=instruction, make_room=make_room)
    return {
        key: Prefix(
            tuple(tensor[row : row + 1, :, : len(ids)].clone() for tensor in states.keys),
            tuple(tensor[row : row + 1, :, : len(ids)].clone() for tensor in states.values),
        )
        for row, (key, ids) in enumerate(documents.items())
    }


def _batches(model: PreTrainedModel, instruction: int, documents: dict[str, tuple[int, ...]]) -> Iterator[list[str]]:
    """Keys of documents of similar length, as many at a time as `chunk_rows` allows, longest first."""
    batch: list[str] = []
    longest = most = 0
    for key in sorted(documents, key=lambda key: (-len(documents[key]), documents[key])):
        length = len(documents[key])
        if batch and (len(batch) == most or length < SHORTEST_SHARE * longest):
            yield batch
            batch = []
        if not batch:
            rows = chunk_rows(model, instruction + length) // (CPU_PART if model.device.type == "cpu" else 1)
            longest, most = length, max(1, rows // length)
        batch.append(key)
    if batch:
        yield batch


def _part(prompt: IndependentPrompt, number: int) -> tuple[int, ...]:
    start, end = prompt.parts[number]
    return prompt.ids[start:end]


def _own_order(prompt: IndependentPrompt) -> list[int]:
    """Documents by their tokens: sums over them then come out the same whatever order the caller has."""
    return sorted(range(len(prompt.parts)), key=lambda number: _part(prompt, number))


def _columns(prompt: IndependentPrompt, order: Sequence[int]) -> Tensor:
    """Where in the prompt each token of the prefix stands, when documents are in `order`."""
    spans = [(0, prompt.instruction), *(prompt.parts[number] for number in order)]
    return torch.cat([torch.arange(start, end) for start, end in spans])
