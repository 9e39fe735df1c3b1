"""Tokens: a control token of one character, which is in the vocabulary too, never comes from a caller's text."""

from __future__ import annotations

import json

import pytest
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from qr_core import Document
from qr_core.prompts.independent import IndependentPromptBuilder
from qr_core.prompts.joint import PromptBuilder
from qr_core.prompts.templates import Template
from qr_core.prompts.tokens import Tokeniser
from tests import tokenizers

CONTROL = "?"
TEXT = f"{CONTROL} banana {CONTROL}{CONTROL} x{CONTROL}"


def with_control(kind: str) -> PreTrainedTokenizerFast:
    """A tokenizer one of whose characters, which its vocabulary has, is a control token."""
    made = Tokenizer.from_str(tokenizers.made(kind).backend_tokenizer.to_str())
    assert made.token_to_id(CONTROL) is not None
    made.add_special_tokens([AddedToken(CONTROL, special=True, normalized=False)])
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token=tokenizers.made(kind).unk_token)


@pytest.mark.parametrize("kind", tokenizers.KINDS)
def test_a_one_character_control_token_is_no_text(kind):
    made = with_control(kind)
    own = made.backend_tokenizer.token_to_id(CONTROL)
    tokens = Tokeniser(made, adds_bos=False)
    assert own in tokens.control_ids
    assert own not in tokens.encode_data(TEXT).ids
    assert tokens.count(TEXT) > 0
    template = Template("plain", prefix=f"{CONTROL}\n", suffix=f"\n{CONTROL}")
    for build in (PromptBuilder(made, template), PromptBuilder(made, Template("plain"))):
        (prompt,) = build.build([TEXT], [Document(TEXT, TEXT), Document("b")])
        (clean,) = build.build(["b"], [Document("b", "b"), Document("b")])
        assert list(prompt.ids).count(own) == list(clean.ids).count(own)
        start, stop = prompt.document_spans[0]
        assert stop - start > len(TEXT) // 4  # nothing of the text is left out
    apart = IndependentPromptBuilder(made, Template("plain"))
    assert own not in apart.tokens.encode_data(TEXT).ids


@pytest.mark.parametrize("kind", tokenizers.KINDS)
def test_other_text_has_the_tokens_it_had(kind):
    plain, other = Tokeniser(tokenizers.made(kind), False), Tokeniser(with_control(kind), False)
    text = "the river is wide </s>"
    assert plain.encode_data(text).ids.tolist() == other.encode_data(text).ids.tolist()


def test_pieces_are_renamed_and_keep_their_ids():
    made = with_control("gpt2")
    own = made.backend_tokenizer.token_to_id(CONTROL)
    spelling = json.loads(Tokeniser(made, False)._spelling.to_str())["model"]
    assert own in spelling["vocab"].values()
    assert CONTROL not in spelling["vocab"]
    assert not any(CONTROL in pair for pair in spelling["merges"])
