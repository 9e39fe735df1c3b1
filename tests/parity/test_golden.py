"""Scores equal those of the published implementation, and are right where it goes wrong."""

from __future__ import annotations

import gzip
import json

import pytest
import torch

from qr_core import HeadSetError, InputError
from qr_core.attention.prefill import prefill
from qr_core.detection.examples import Example
from qr_core.detection.measuring import measure
from qr_core.ranking import scoring
from tests.helpers import (
    GOLDEN,
    captured_masses,
    documents_of,
    eager_masses,
    eager_model,
    golden_scorer,
    in_order,
    plain_score,
)

FAMILIES = ("llama", "qwen2")
CASES = {
    family: {c["name"]: c for c in json.loads(gzip.decompress((GOLDEN / f"{family}.json.gz").read_bytes()))["cases"]}
    for family in FAMILIES
}
REGULAR = [(f, n) for f in FAMILIES for n, c in CASES[f].items() if c["kind"] == "regular" and n != "empty_query"]
SCORED_QUIRKS = [
    (f, n)
    for f in FAMILIES
    for n, c in CASES[f].items()
    if c["kind"] == "quirk" and n not in ("quirk_head_out_of_range", "quirk_no_docs", "quirk_query_equals_null")
]


@pytest.mark.parametrize(("family", "name"), REGULAR)
def test_regular_cases(golden, family, name):
    case = CASES[family][name]
    scorer = golden_scorer(golden[family], case)
    ranking = scorer.rank(case["query"], documents_of(case))
    assert in_order(ranking) == pytest.approx(case["scores_in_order"], abs=1e-5)
    assert [hit.score for hit in ranking] == sorted((hit.score for hit in ranking), reverse=True)

    asked, null = scorer.reader.prompts.build([case["query"], "N/A"], documents_of(case))
    assert list(asked.ids) == case["input_ids"]
    assert list(null.ids) == case["null_input_ids"]
    assert [[start, end - 1] for start, end in asked.document_spans] == case["doc_spans"]
    assert [asked.query_start, len(asked.ids) - 1] == case["query_span"]


@pytest.mark.parametrize("family", FAMILIES)
def test_empty_query_case(golden, family):
    """The published code scores an empty query; here it is refused, but the computation under it agrees."""
    case = CASES[family]["empty_query"]
    scorer = golden_scorer(golden[family], case)
    with pytest.raises(InputError, match="empty"):
        scorer.rank(case["query"], documents_of(case))
    found = scorer.token_masses(case["query"], documents_of(case))
    scores = scoring.score_documents(found.mass.sum(dim=0), found.prompt.document_spans)
    assert scores.tolist() == pytest.approx(case["scores_in_order"], abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_prefill_reproduces_hidden_states(golden, family):
    check = golden[family]["hidden_check"]
    ids = CASES[family][check["case"]]["input_ids"]
    model = eager_model(GOLDEN / golden[family]["model"]).base_model
    states = []
    for layer in model.layers:
        layer.register_forward_pre_hook(lambda module, args: states.append(args[0]))
    with torch.no_grad():
        prefill(model, torch.tensor([ids]), len(model.layers) - 1)
    # the input of each layer; the last expected state is the final norm's, which a prefill never reaches
    for found, expected in zip(states, check["states"][:-1], strict=True):
        assert found[0, check["position"]].tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_raw_token_masses(golden, family):
    """Every head's raw mass on every token, before subtraction."""
    case = CASES[family]["two_docs_titles"]
    every = [(layer, head, None) for layer in range(golden[family]["layers"]) for head in range(8)]
    scorer = golden_scorer(golden[family], case, heads=every)
    for query, key in ((case["query"], "token_scores_query"), ("N/A", "token_scores_null")):
        masses, prompt = captured_masses(scorer, query, documents_of(case))
        expected = torch.tensor(case[key])[..., : prompt.query_start].flatten(0, 1)
        assert torch.allclose(masses, expected, rtol=0, atol=1e-5)


PER_HEAD = [(f, n) for f in FAMILIES for n, c in CASES[f].items() if "per_head_scores" in c]


@pytest.mark.parametrize(("family", "name"), PER_HEAD)
def test_per_head_scores(golden, family, name):
    """What detection measures: each head filtered on its own."""
    case = CASES[family][name]
    every = [(layer, head, None) for layer in range(golden[family]["layers"]) for head in range(8)]
    scorer = golden_scorer(golden[family], case, heads=every)
    found = measure(scorer, Example(name, case["query"], tuple(documents_of(case)), (0,))).filtered
    near = {tuple(triple) for triple in case["per_head_near_threshold"]}
    for place, document in enumerate(case["docs"]):
        for layer, row in enumerate(case["per_head_scores"][document["idx"]]):
            for head, expected in enumerate(row):
                if (document["idx"], layer, head) not in near:
                    assert float(found[layer * 8 + head, place]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("family", "name"), SCORED_QUIRKS)
def test_quirks_are_scored_by_construction(golden, family, name):
    """Where the published code loses spans or raises, scores equal an eager computation on the right spans."""
    case = CASES[family][name]
    scorer = golden_scorer(golden[family], case)
    documents = documents_of(case)
    asked, null = scorer.reader.prompts.build([case["query"], "N/A"], documents)
    model = eager_model(GOLDEN / case["model"])
    heads = sorted({tuple(pair) for pair in case["head_list"]})
    calibrated = eager_masses(model, asked.ids, asked.query_start) - eager_masses(model, null.ids, null.query_start)
    expected = plain_score(sum(calibrated[layer, head] for layer, head in heads), asked.document_spans)
    assert in_order(scorer.rank(case["query"], documents)) == pytest.approx(expected, abs=1e-5)
    check_spans(scorer, asked, documents)


def check_spans(scorer, prompt, documents):
    """Spans follow each other without overlap, and each one's tokens spell its document."""
    control = scorer.reader.prompts.tokens.control_ids
    end = 0
    for number, ((start, stop), document) in enumerate(zip(prompt.document_spans, documents, strict=True), start=1):
        assert end <= start < stop
        end = stop
        ids = prompt.ids[start:stop]
        assert not control & set(ids)
        spelled = scorer.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        wanted = f"[{number}] " + ("" if document.title is None else f"{document.title}\n") + document.text
        normaliser = scorer.tokenizer.backend_tokenizer.normalizer
        assert spelled.startswith(normaliser.normalize_str(wanted) if normaliser else wanted)
    assert end <= prompt.query_start


@pytest.mark.parametrize("family", FAMILIES)
def test_control_tokens_in_text_stay_text(golden, family):
    """A prompt is not closed early: it has just the control tokens of its template."""
    for name in ("quirk_control_token_in_doc", "quirk_control_token_in_query", "quirk_doc_contains_query_suffix"):
        case = CASES[family][name]
        scorer = golden_scorer(golden[family], case)
        hostile = scorer.reader.prompts.build([case["query"]], documents_of(case))[0]
        benign = scorer.reader.prompts.build(["a query"], documents_of(CASES[family]["two_docs_titles"]))[0]
        control = scorer.reader.prompts.tokens.control_ids
        assert [i for i in hostile.ids if i in control] == [i for i in benign.ids if i in control]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_null_query_is_ranked_without_calibration(golden, family):
    """The published code scores every document exactly 0 here."""
    case = CASES[family]["quirk_query_equals_null"]
    scorer = golden_scorer(golden[family], case)
    ranking = scorer.rank("N/A", documents_of(case))
    assert not ranking.calibrated
    assert all(hit.score > 0 for hit in ranking)
    assert scorer.rank("When?", documents_of(case)).calibrated


@pytest.mark.parametrize("family", FAMILIES)
def test_duplicate_ids_are_told_apart(golden, family):
    case = CASES[family]["quirk_duplicate_idx"]
    ranking = golden_scorer(golden[family], case).rank(case["query"], documents_of(case))
    assert sorted(hit.index for hit in ranking) == list(range(len(case["docs"])))
    assert len({hit.score for hit in ranking}) == len(case["docs"])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_repeated_head_counts_once(golden, family):
    case = CASES[family]["quirk_repeated_head"]
    documents = documents_of(case)
    once = [(layer, head, None) for layer, head in sorted({tuple(pair) for pair in case["head_list"]})]
    twice = golden_scorer(golden[family], case).rank(case["query"], documents)
    assert in_order(twice) == in_order(golden_scorer(golden[family], case, heads=once).rank(case["query"], documents))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_out_of_range_is_named(golden, family):
    with pytest.raises(HeadSetError, match="outside the model"):
        golden_scorer(golden[family], CASES[family]["quirk_head_out_of_range"])


@pytest.mark.parametrize("family", FAMILIES)
def test_no_documents(golden, family):
    case = CASES[family]["quirk_no_docs"]
    assert len(golden_scorer(golden[family], case).rank(case["query"], [])) == 0
