"""Templates: every kind is chosen by name, and one more is one entry."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from transformers import AutoTokenizer

from qr_core import HeadSet, HeadSetError, InputError, QRScorer
from qr_core.prompts import TEMPLATES, Template, TemplateSource
from qr_core.prompts.continuation import continued
from qr_core.prompts.independent import IndependentPromptBuilder
from qr_core.prompts.joint import PromptBuilder
from qr_core.types import Document
from tests.helpers import GOLDEN

DOCUMENTS = [Document("Our office is closed on public holidays."), Document("Refunds take five days.", "Refunds")]
QUERY = "How long does a refund take?"


def telegram(tokenizer, strings, arguments):
    return Template("telegram", prefix=arguments["greeting"], late_instruction="STOP WANTED", query_label="ASKED:")


@pytest.fixture
def added():
    TEMPLATES.add("telegram", TemplateSource(telegram, arguments={"greeting": "HELLO STOP"}))
    yield "telegram"
    TEMPLATES.remove("telegram")


@pytest.mark.parametrize("layout", ["joint", "independent"])
def test_another_template_is_one_entry(added, layout, tmp_path):
    scorer = QRScorer.from_pretrained(
        GOLDEN / "tiny-llama", "2-1,4-3", template=added, layout=layout, device="cpu", dtype="float32"
    )
    prompt = scorer.prompts.build([QUERY], DOCUMENTS)[0]
    whole = scorer.tokenizer.decode(prompt.ids, skip_special_tokens=True)
    asked = scorer.tokenizer.decode(prompt.ids[prompt.query_start :])
    assert whole.startswith("HELLO STOP")
    assert asked.strip() == f"STOP WANTED\n\nASKED: {QUERY}"
    ranking = scorer.rank(QUERY, DOCUMENTS)
    plain = QRScorer.from_pretrained(
        GOLDEN / "tiny-llama", "2-1,4-3", template="plain", layout=layout, device="cpu", dtype="float32"
    )
    assert len(ranking) == 2
    assert ranking[0].score != plain.rank(QUERY, DOCUMENTS)[0].score

    scorer.heads.save(tmp_path / "heads.json")
    assert json.loads((tmp_path / "heads.json").read_text())["template_arguments"] == {"greeting": "HELLO STOP"}
    again = QRScorer.from_pretrained(
        GOLDEN / "tiny-llama", tmp_path / "heads.json", layout=layout, device="cpu", dtype="float32",
        allow_model_mismatch=True,
    )  # fmt: skip
    assert again.template == scorer.template
    assert [hit.score for hit in again.rank(QUERY, DOCUMENTS)] == [hit.score for hit in ranking]


def test_the_command_line_takes_another_template(added, run, tmp_path):
    (tmp_path / "docs.txt").write_text("\n".join(document.text for document in DOCUMENTS))
    options = ["--query", QUERY, "--docs", str(tmp_path / "docs.txt"), "--format", "json"]
    options += ["--model", str(GOLDEN / "tiny-llama"), "--heads", "2-1,4-3", "--device", "cpu", "--template"]
    scores = []
    for name in (added, "plain"):
        status, out, err = run("rank", *options, name)
        assert status == 0, err
        scores.append([hit["score"] for hit in json.loads(out)["hits"]])
    assert scores[0] != scores[1]


def test_a_name_that_nobody_added_is_refused():
    with pytest.raises(InputError, match="template is 'telegram': use one of chat, reference, plain"):
        QRScorer.from_pretrained(GOLDEN / "tiny-llama", "2-1", template="telegram", device="cpu")
    fields = {"model": "m", "config": {"layers": 2, "heads": 2, "kv_heads": 1, "hidden": 8}, "heads": [(0, 0, None)]}
    with pytest.raises(HeadSetError, match="template is 'telegram': use one of"):
        HeadSet(**fields, template="telegram", criterion="c", data="d")


@pytest.mark.parametrize("builder_of", [PromptBuilder, IndependentPromptBuilder])
def test_the_query_part_begins_with_the_template_s_own_instruction(builder_of):
    tokenizer = AutoTokenizer.from_pretrained(GOLDEN / "tiny-qwen2")
    template = Template("mine", late_instruction="Find what answers this.", query_label="Question:")
    prompt = builder_of(tokenizer, template).build([QUERY], DOCUMENTS)[0]
    asked = tokenizer.decode(prompt.ids[prompt.query_start :], skip_special_tokens=True)
    assert asked.strip() == f"Find what answers this.\n\nQuestion: {QUERY}"


def test_a_further_query_keeps_the_template_s_own_instruction(embedded):
    template = replace(embedded.template, late_instruction="Find what answers this, please.", query_label="Question:")
    builder = PromptBuilder(embedded.tokenizer, template)
    documents = [Document(f"Paragraph {number} is about refunds and holidays. " * 20) for number in range(4)]
    first, second = (builder.build([query], documents)[0] for query in (QUERY, "When are you closed?"))
    assert continued(builder, first, "When are you closed?", documents) == second
