"""Examples: which can be used, what is said of the others, and their order."""

from __future__ import annotations

import pytest
from transformers import MistralConfig

from qr_core import Document, Example, InputError, QRScorer, detect_heads
from tests.architectures import COMMON
from tests.unit.detection.planted import EXAMPLES, example


def test_bad_examples_are_named_counted_and_change_nothing(planted):
    first = EXAMPLES[0]
    bad = [
        Example("no gold", first.query, first.documents, ()),
        Example("far gold", first.query, first.documents, (19,)),
        Example("all gold", first.query, first.documents[:2], (0, 1)),
        Example("no query", " ", first.documents, (0,)),
        Example("nothing", first.query, (), (0,)),
        Example("too long", first.query, (Document("word " * 5000), *first.documents), (1,)),
    ]
    clean = detect_heads(planted[0], EXAMPLES[:4], device="cpu")
    found = detect_heads(planted[0], [*bad[:3], *EXAMPLES[:4], *bad[3:]], unreadable={"x": "torn"}, device="cpu")
    assert found.heads.heads == clean.heads.heads
    assert found.heads.provenance.fingerprint == clean.heads.provenance.fingerprint
    assert found.heads.provenance.left_out == 7
    assert set(found.left_out) == {e.id for e in bad} | {"x"}
    assert "tokens longer than 4096" in found.left_out["too long"]
    assert "there are 10" in found.left_out["far gold"]
    with pytest.raises(InputError, match=r"no usable example among 6; 6 left out, the first, no gold, because none"):
        detect_heads(planted[0], bad, device="cpu")
    with pytest.raises(InputError, match="no usable example among 0"):
        detect_heads(planted[0], [], device="cpu")


def test_repeated_ids_stay_apart(planted):
    twice = [EXAMPLES[0], Example("e0", "q", EXAMPLES[0].documents, ())]
    found = detect_heads(planted[0], twice, device="cpu")
    assert list(found.left_out) == ["e0 (2)"]


def test_shuffling_depends_on_seed_and_example_alone():
    one = example(1)
    assert one.shuffled(0) == one.shuffled(0)
    assert len({one.shuffled(seed).documents for seed in range(8)}) > 4
    for seed in range(5):
        moved = one.shuffled(seed)
        assert [moved.documents[g] for g in moved.gold] == [one.documents[g] for g in one.gold]


def test_documents_encoded_independently_are_as_long_as_the_positions_they_take(save_tiny):
    """More tokens than a window holds are no reason to leave an example out, more positions are."""
    folder = save_tiny(MistralConfig(**COMMON, head_dim=8, sliding_window=100))
    scorer = QRScorer.from_pretrained(folder, "all", template="plain", device="cpu", layout="independent")
    short, long = Document("The tide turns at six."), Document("Rye bread. " * 100)
    examples = [Example("many", "tide", (short, *[Document("Rye bread.")] * 40), (0,))]
    examples.append(Example("long", "tide", (short, long), (0,)))
    found = detect_heads(scorer, examples, "ndcg", num_heads=1)
    assert len(found.left_out) == 1
    assert "longer than 100" in found.left_out["long"]
