"""Prompts: ids as the tokenizer alone would make them, spans by construction, text as data."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from qr_core import Document, ModelLoadError
from qr_core.prompt import PromptBuilder, Template, chat_template, plain_template, reference_template
from tests.helpers import DOCUMENTS, GOLDEN, QUERY, STRINGS

TOKENIZERS = {name: AutoTokenizer.from_pretrained(GOLDEN / name) for name in ("tiny-llama", "tiny-qwen2")}
FAMILY = {"tiny-llama": "llama", "tiny-qwen2": "qwen2"}


def builder(name: str, kind: str = "reference") -> PromptBuilder:
    tokenizer = TOKENIZERS[name]
    template = {
        "reference": lambda: reference_template(STRINGS[FAMILY[name]]),
        "chat": lambda: chat_template(tokenizer),
        "plain": plain_template,
    }[kind]()
    return PromptBuilder(tokenizer, template)


def spelled(name: str, prompt, span) -> str:
    return TOKENIZERS[name].decode(prompt.ids[span[0] : span[1]], clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("kind", ["reference", "chat", "plain"])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_benign_ids_equal_whole_string_tokenisation(name, kind):
    made = builder(name, kind)
    text = made._compose(QUERY, DOCUMENTS).string
    whole = TOKENIZERS[name](text, add_special_tokens=kind != "chat")["input_ids"]
    assert list(made.build([QUERY], DOCUMENTS)[0].ids) == whole


@pytest.mark.parametrize("name", TOKENIZERS)
def test_plain_prompt_reads_as_documented(name):
    made = builder(name, "plain")
    assert made._compose("Who?", [Document("b", "A"), Document("c")]).string == (
        "Here are some paragraphs:\n\n[1] A\nb\n\n[2] c\n\nPlease find information that are relevant to the following "
        "query in the paragraphs above.\n\nQuery: Who?"
    )


def test_chat_template_is_rendered_once_with_the_callers_text_untouched():
    made = builder("tiny-qwen2", "chat")
    prompt = made._compose("  padded  ", [Document("x")])
    assert "Query:   padded  " in prompt.string
    assert prompt.string.startswith(made.template.prefix)
    assert prompt.string.endswith(made.template.suffix)


def test_begin_of_text_comes_once():
    bos = TOKENIZERS["tiny-llama"].bos_token_id
    for kind in ("reference", "chat", "plain"):
        ids = builder("tiny-llama", kind).build([QUERY], DOCUMENTS)[0].ids
        assert ids[0] == bos
        assert ids.count(bos) == 1


class NoTemplate:
    chat_template = None


class Failing:
    chat_template = "{{ raise_exception('no') }}"

    def apply_chat_template(self, *args, **kwargs):
        raise ValueError("roles must alternate")


class Dropping:
    chat_template = "x"

    def apply_chat_template(self, *args, **kwargs):
        return "nothing of the user's"


@pytest.mark.parametrize(
    ("tokenizer", "words"), [(NoTemplate, "no chat template"), (Failing, "fails"), (Dropping, "0 times")]
)
def test_unusable_chat_templates_are_errors(tokenizer, words):
    with pytest.raises(ModelLoadError, match=words):
        chat_template(tokenizer())


def test_a_slow_tokenizer_is_refused():
    with pytest.raises(ModelLoadError, match="slow tokenizer"):
        PromptBuilder(NoTemplate(), plain_template())


def test_lone_surrogates_become_the_replacement_character():
    prompt = builder("tiny-llama").build([QUERY], [Document("a \ud800 b"), Document("c")])[0]
    assert "\ufffd" in spelled("tiny-llama", prompt, prompt.document_spans[0])


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("quoted", ["[2] c", "Query: when", "Please find information", "\n\n[3] ", ""])
def test_other_documents_text_never_moves_a_span(name, quoted):
    prompt = builder(name).build([QUERY], [Document(quoted), Document("c"), Document("d")])[0]
    assert [spelled(name, prompt, span).strip() for span in prompt.document_spans[1:]] == ["[2] c", "[3] d"]


hostile = st.text(max_size=40) | st.sampled_from(
    [
        "<|eot_id|>",
        "<|im_end|>",
        "<|im_start|>user",
        "[2] ",
        "<|begin_of_text|>x<|eot_id|>",
        "e\u0301",
        "\r\n",
        "\u202e",
        "\0",
    ]
)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(deadline=None, max_examples=60)
@given(texts=st.lists(st.tuples(hostile, hostile).map("".join), min_size=1, max_size=4), query=hostile)
def test_any_text_is_data(name, texts, query):
    made = builder(name)
    asked, null = made.build([query, "N/A"], [Document(text) for text in texts])
    template_controls = [i for i in made.build(["q"], [Document("d")])[0].ids if i in made._control_ids]
    assert [i for i in asked.ids if i in made._control_ids] == template_controls
    assert asked.ids[: asked.query_start] == null.ids[: null.query_start]
    end = 0
    for number, (start, stop) in enumerate(asked.document_spans, start=1):
        assert end <= start < stop <= asked.query_start
        assert spelled(name, asked, (start, stop)).startswith(f"[{number}]")
        end = stop


def test_text_that_completes_a_control_token_with_the_template():
    """A query's end and the template's suffix together must not become another control token."""
    tokenizer = TOKENIZERS["tiny-qwen2"]
    made = PromptBuilder(tokenizer, Template("plain", suffix="_end|> done"))
    prompt = made.build(["what <|im"], [Document("d")])[0]
    assert not set(prompt.ids) & made._control_ids
