"""What the adapters share: the scorer's options as theirs, written down and read again, and one scorer behind them."""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import fields

import pytest
from pydantic import ValidationError

from qr_core import InputError, ScorerOptions, chain
from qr_core.chain import ChainOptions
from tests.helpers import GOLDEN

TINY = {"model": str(GOLDEN / "tiny-llama"), "heads": "2-1,3-4", "template": "plain", "device": "cpu"}
TEXTS = ["The lamp was lit in 1871. It is red.", "Forty loaves.", "  "]


def test_the_scorers_options_are_the_adapters():
    given = ChainOptions(**TINY, layout="independent", passage_tokens=9, device_map=None, cache_bytes=0, top_n=2)
    assert given.scorer_options() == ScorerOptions(**TINY, layout="independent", passage_tokens=9, cache_bytes=0)
    assert given.scorer.options.passage_tokens == 9
    assert given.scorer is given.scorer


def test_defaults_are_those_of_the_scorer():
    assert ChainOptions().scorer_options() == ScorerOptions()
    described = {name: field.description for name, field in ChainOptions.model_fields.items()}
    assert all(described[one.name] == one.metadata["help"] for one in fields(ScorerOptions) if one.name in described)


@pytest.mark.parametrize(
    "wrong",
    [
        {"colour": "red"},
        {"layout": "round"},
        {"template": "sonnet"},
        {"max_prompt_tokens": 0},
        {"passage_tokens": 0},
        {"retrieval_weight": 1.5},
        {"retrieval_weight": float("nan")},
        {"cache_bytes": -1},
        {"quantized_cache": "fp8"},
        {"tp_size": 2, "device_map": "auto"},
        {"prune": True},
        {"prune_ellipsis": "." * 101},
        {"prune_unit": "word", "prune": True, "prune_max_tokens": 5},
        {"score_threshold": 2},
    ],
)
def test_bad_options_are_refused_at_once(wrong):
    with pytest.raises(ValidationError):
        ChainOptions(**wrong)


def test_options_travel_as_plain_data():
    given = ChainOptions(
        **TINY, document_cache="folder", device_map={"": "cpu"}, quantized_cache={"backend": "fp8"}, top_n=3
    )
    assert ChainOptions(**json.loads(given.model_dump_json())) == given
    assert given.scorer_options().device_map == {"": "cpu"}


def test_pickles_hold_no_weights():
    given = ChainOptions(**TINY, top_n=1)
    assert [kept.index for kept in given.select("Who lit the lamp?", TEXTS)]
    packed = pickle.dumps(given)
    assert len(packed) < 2000
    again = pickle.loads(packed)  # noqa: S301 - our own
    assert again == ChainOptions(**TINY, top_n=1)
    assert again._scorer is None


def test_select_cuts_prunes_and_leaves_blank_documents():
    assert ChainOptions(**TINY).select("q", []) == []
    ranked = ChainOptions(**TINY, score_threshold=0.0).select("Who lit the lamp?", TEXTS)
    assert sorted(kept.index for kept in ranked) == [0, 1, 2]
    pruned = ChainOptions(**TINY, prune=True, prune_max_tokens=12).select("Who lit the lamp?", TEXTS)
    for kept in pruned:
        if kept.text is not None:
            assert kept.kept_tokens <= 12
            assert all(TEXTS[kept.index][start:end] in kept.text for start, end in kept.spans)
    assert {"qrhead_spans", "qrhead_kept_tokens", "qrhead_total_tokens"} == set(
        next(kept for kept in pruned if kept.text is not None).pruning()
    )
    assert ranked[0].pruning() == {}


def test_the_order_of_the_documents_may_count():
    """Of the caller's list, although the prompt has it backwards; the threshold is on what gives the order."""
    every = ChainOptions(**TINY, retrieval_weight=1).select("Who lit the lamp?", TEXTS)
    assert [kept.index for kept in every] == [0, 1, 2]
    assert [kept.relevance for kept in every] == pytest.approx([6 / 11, 3 / 11, 2 / 11])
    few = ChainOptions(**TINY, retrieval_weight=1, score_threshold=0.2, top_n=2).select("Who lit the lamp?", TEXTS)
    assert few == every[:2]
    plain = ChainOptions(**TINY).select("Who lit the lamp?", TEXTS)
    assert ChainOptions(**TINY, retrieval_weight=0).select("Who lit the lamp?", TEXTS) == plain


async def test_calls_wait_for_the_scorers_thread():
    given = ChainOptions(**TINY)
    kept = await given.in_scorers_thread(given.select, "Who lit the lamp?", TEXTS[:2])
    assert kept == given.select("Who lit the lamp?", TEXTS[:2])


def test_errors_are_the_scorers():
    with pytest.raises(InputError):
        ChainOptions(**TINY).select(" ", TEXTS)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_while_another_thread_makes_a_scorer():
    given = ChainOptions(**TINY)
    with chain._making:
        child = os.fork()
        if child == 0:  # pragma: no cover - another process
            os._exit(0 if given.scorer.model_name else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
