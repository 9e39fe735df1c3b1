"""Behaviours that both adapters share, on the frameworks' own objects with the embedded model.

What goes in and comes out, options, long input and pruning; `test_behaviours_sharing.py` has those of many callers and
of copies. The numbers run through both files.
"""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
from itertools import pairwise

import pytest
from langchain_qrhead import QRHeadCompressor
from llama_index.core.schema import ImageNode, MetadataMode, NodeWithScore, TextNode
from llama_index.postprocessor.qrhead import QRHeadRerank
from pydantic import ValidationError

from qr_core import InputError, QRScorer
from tests.integrations.frameworks import PRUNE, QUERY, TEXTS, LangChain, LlamaIndex


def dumped(items) -> list[str]:
    return [item.model_dump_json() for item in items]


@pytest.mark.parametrize("options", [{}, PRUNE])
def test_1_inputs_are_untouched_and_outputs_are_copies(framework, options):
    given = framework.given()
    before = dumped(given)
    found = framework.run(framework.make(**options), given)
    assert dumped(given) == before
    for out in found:
        out.metadata["nested"].append("changed")
    assert dumped(given) == before


@pytest.mark.parametrize("options", [{}, PRUNE])
def test_2_ids_subclass_and_metadata_are_kept(framework, options):
    found = framework.run(framework.make(**options), framework.given())  # `out` checks subclass and relationships
    assert {out.id for out in found} <= {"d0", "d1", "d2", "d3"}
    assert all(out.metadata["page"] == int(out.id[1]) for out in found)
    assert found[0].id == "d2"


def test_3_scores_are_finite_floats(framework):
    for out in framework.run(framework.make(**PRUNE), framework.given()):
        assert type(out.score) is float
        assert math.isfinite(out.score)
        json.dumps(out.metadata, allow_nan=False)


def test_4_deterministic_and_matched_by_position(framework):
    given = framework.given([TEXTS[0], TEXTS[2], TEXTS[0], TEXTS[1]], ids=["same"] * 4)
    first = framework.run(framework.make(), given)
    assert [(o.metadata["page"], o.score) for o in first] == [
        (o.metadata["page"], o.score) for o in framework.run(framework.make(), given)
    ]
    assert sorted(out.metadata["page"] for out in first) == [0, 1, 2, 3]
    assert first[0].metadata["page"] == 1


def test_4_ties_keep_the_retrieval_order(framework):
    found = framework.run(framework.make(), framework.given(), query="N/A zzz qqq")
    zeros = [out.metadata["page"] for out in found if out.score == 0]
    ranking = QRScorer.from_pretrained().rank("N/A zzz qqq", TEXTS, order="reversed")
    assert [out.metadata["page"] for out in found] == [hit.index for hit in ranking]
    assert zeros == [hit.index for hit in ranking if hit.relevance == 0]


def test_5_top_n(framework):
    assert len(framework.run(framework.make(), framework.given())) == 4
    assert len(framework.run(framework.make(top_n=9), framework.given())) == 4
    assert [out.id for out in framework.run(framework.make(top_n=1), framework.given())] == ["d2"]


@pytest.mark.parametrize(
    "options",
    [
        {"top_n": 0}, {"top_n": -1}, {"topn": 3}, {"order": "sideways"}, {"score_threshold": 1.5}, {"prune": True},
        {"prune": True, "prune_max_tokens": 0}, {"prune_unit": "word"}, {"max_prompt_tokens": 0},
    ],
)  # fmt: skip
def test_5_wrong_options_are_refused_at_construction(framework, options):
    with pytest.raises(ValidationError):
        framework.make(**options)


def test_6_threshold_is_inclusive_and_comes_before_top_n(framework):
    every = framework.run(framework.make(), framework.given())
    second = every[1].score
    assert [o.id for o in framework.run(framework.make(score_threshold=second), framework.given())] == [
        out.id for out in every if out.score >= second
    ]
    assert len(framework.run(framework.make(score_threshold=second, top_n=1), framework.given())) == 1
    assert framework.run(framework.make(score_threshold=1.0), framework.given(TEXTS[:2] * 2)) == []


def test_6_the_retrievers_order_may_count(framework):
    """The list's, whatever scores it came with: with all the weight it stays, with none of it attention decides."""
    given = framework.given()
    plain = framework.run(framework.make(), given)
    assert framework.run(framework.make(retrieval_weight=0.0), given) == plain
    assert plain[0].id == "d2"
    kept = framework.run(framework.make(retrieval_weight=1.0), given)
    assert [out.id for out in kept] == ["d0", "d1", "d2", "d3"]
    found = framework.run(framework.make(retrieval_weight=0.3, top_n=3), given)
    assert [out.id for out in found] == ["d2", "d0", "d1"]  # nothing draws the attention away from d2
    assert [out.score for out in found] == sorted((out.score for out in found), reverse=True)
    with pytest.raises(ValidationError):
        framework.make(retrieval_weight=2)


def test_7_an_empty_list_loads_nothing(framework):
    absent = framework.make(model="/absent")
    assert framework.run(absent, []) == []
    assert asyncio.run(framework.arun(absent, [])) == []


@pytest.mark.parametrize("options", [{}, PRUNE])
def test_7_one_item_and_blank_text(framework, options):
    (only,) = framework.run(framework.make(**options), framework.given(TEXTS[2:3]))
    assert only.id == "d0"
    found = framework.run(framework.make(**options), framework.given(["", " \n", TEXTS[2]]))
    assert {"d0", "d1", "d2"} == {out.id for out in found}


@pytest.mark.parametrize("options", [{}, PRUNE])
def test_7_image_only_nodes(options):
    nodes = [NodeWithScore(node=ImageNode(image_url="https://example.org/a.png"), score=0.5), LlamaIndex().given()[2]]
    found = QRHeadRerank(**options).postprocess_nodes(nodes, query_str=QUERY)
    assert {type(n.node).__name__ for n in found} == {"ImageNode", "Sub"}


def test_8_a_missing_query_is_a_clear_error(framework):
    for query in ("", "  "):
        with pytest.raises(InputError, match="query is empty"):
            framework.run(framework.make(), framework.given(), query=query)
    with pytest.raises(InputError, match="needs a query"):
        QRHeadRerank().postprocess_nodes(LlamaIndex().given())


def test_13_long_input_is_windowed_not_cut(framework):
    texts = [f"Room {i} has a bed for {i} guests. " * 8 for i in range(40)]
    texts[31] += "The lighthouse was first lit in 1871."
    found = framework.run(framework.make(max_prompt_tokens=700), framework.given(texts))
    assert len(found) == 40
    assert found[0].id == "d31"
    long = "Nothing of note happened that year. " * 400 + "The lighthouse was first lit in 1871."
    assert framework.run(framework.make(max_prompt_tokens=700), framework.given([TEXTS[1], long]))[0].id == "d1"


@pytest.mark.parametrize("unit", ["sentence", "paragraph", "document"])
def test_14_pruning_is_extractive_and_within_its_budget(framework, unit):
    given = framework.given()
    adapter = framework.make(prune=True, prune_max_tokens=25, prune_unit=unit)
    found = framework.run(adapter, given)
    assert found
    assert sum(out.metadata["qrhead_kept_tokens"] for out in found) <= 25
    for out in found:
        original = TEXTS[int(out.id[1])]
        spans = out.metadata["qrhead_spans"]
        assert spans == sorted(spans)
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))
        assert out.text.split() == " ".join(original[a:b] for a, b in spans).split()
        assert out.metadata["qrhead_kept_tokens"] == adapter.scorer.count_tokens(out.text)
        assert out.metadata["qrhead_total_tokens"] == adapter.scorer.count_tokens(original)


def test_14_at_least_the_minimum_is_kept(framework):
    options = {"prune": True, "prune_min_relevance": 1.0, "top_n": 1}
    (best,) = framework.run(framework.make(**options), framework.given())
    assert len(best.metadata["qrhead_spans"]) == 1
    assert best.text in TEXTS[2]
    assert framework.run(framework.make(**options, prune_min_keep=0), framework.given()) == []


def test_14_pruning_notes_stay_out_of_the_prompt():
    given = LlamaIndex().given()
    found = QRHeadRerank(keep_retrieval_score=True, **PRUNE).postprocess_nodes(given, query_str=QUERY)
    for out in found:
        for mode in (MetadataMode.LLM, MetadataMode.EMBED):
            content = out.node.get_content(metadata_mode=mode)
            assert "qrhead" not in content
            assert "retrieval_score" not in content
    assert found[0].node.metadata["retrieval_score"] == given[2].score


def test_earlier_scores_are_kept_on_request():
    given = LangChain().given()
    for place, document in enumerate(given):
        document.metadata["relevance_score"] = place / 10
    found = QRHeadCompressor(keep_retrieval_score=True).compress_documents(given, QUERY)
    assert found[0].metadata["retrieval_score"] == 0.2
    assert "retrieval_score" not in QRHeadCompressor().compress_documents(given, QUERY)[0].metadata


@pytest.mark.parametrize(
    ("package", "hidden", "words"),
    [
        ("langchain_qrhead", "langchain_core", "pip install 'qrhead[langchain]'"),
        ("llama_index.postprocessor.qrhead", "llama_index.core", "pip install 'qrhead[llama-index]'"),
    ],
)
def test_15_a_missing_framework_names_the_command(package, hidden, words):
    code = (
        f"import sys\nsys.modules[{hidden!r}] = None\nimport qr_core\n"
        f"try:\n    import {package}\nexcept ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert words in done.stdout


def test_the_metadata_that_is_scored_can_be_chosen():
    nodes = [
        NodeWithScore(node=TextNode(text="It was first lit in 1871.", metadata={"about": "the lighthouse"})),
        NodeWithScore(node=TextNode(text="It was first lit in 1871.", metadata={"about": "an oven"})),
    ]

    def scores(mode, given):
        found = QRHeadRerank(metadata_mode=mode).postprocess_nodes(given, query_str=QUERY)
        return {node.node.metadata["about"]: node.score for node in found}

    for given in (nodes, nodes[::-1]):
        seen = scores(MetadataMode.EMBED, given)
        assert seen["the lighthouse"] > seen["an oven"]
    one, other = scores(MetadataMode.NONE, nodes), scores(MetadataMode.NONE, nodes[::-1])
    assert one["the lighthouse"] == other["an oven"]  # only the place in the list tells them apart
