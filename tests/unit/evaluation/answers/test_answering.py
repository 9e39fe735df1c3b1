"""Answers from selected documents and their outcomes, against a stub of the OpenAI chat protocol; and accuracy."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qr_core import ContextLengthError, Document, GenerationError, InputError
from qr_core.evaluation.answers.answering import Outcome, accuracy, answer_question, selected
from qr_core.evaluation.answers.judging import Judge, JudgeError, read_label
from qr_core.evaluation.work import CandidateSet, Expected
from qr_core.generation import LocalGenerator
from tests.helpers import GOLDEN
from tests.stub_endpoint import completion
from tests.unit.evaluation.answers.ferry import CLAIM, EXPECTED, FERRY, SCORES, answered

# The generator


def test_selected_documents_stand_in_their_order_before_the_question(stub, endpoint):
    assert answer_question(endpoint(), FERRY, [0.5, 0.1, 2.0, -1.0], EXPECTED, 2, 9) == "Blue."
    message = stub.messages[0]
    after_instruction = message.split("\n\n", 1)[1]
    assert after_instruction == (
        "Bakery\nBread is baked on Fridays.\n\nHarbour\nThe pier is closed in storms.\n\n"
        "Question: What colour is the ferry, as of May?"
    )
    assert stub.seen[0]["max_tokens"] == 9


def test_ties_go_to_the_earlier_document_and_no_scores_mean_all():
    def ids(scores, top_k):
        return [d.id for d in selected(FERRY, scores, top_k)]

    assert ids([1.0, 1.0, 1.0, 1.0], 2) == ["a", "b"]
    assert ids([0.0, 1.0, 0.0, 2.0], 3) == ["a", "b", "d"]
    assert ids(SCORES, 9) == ids(None, 1) == ["a", "b", "c", "d"]
    with pytest.raises(InputError, match="3 scores for 4 documents"):
        selected(FERRY, [1.0, 2.0, 3.0], 1)
    with pytest.raises(InputError, match="top_k is 0"):
        selected(FERRY, SCORES, 0)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12), st.integers(1, 14))
def test_what_is_selected_outranks_what_is_not(scores, top_k):
    candidates = CandidateSet("q", "?", tuple(Document("x", id=n) for n in range(len(scores))))
    kept = [d.id for d in selected(candidates, scores, top_k)]
    assert kept == sorted(kept)
    assert len(kept) == min(top_k, len(scores))
    left = set(range(len(scores))) - set(kept)
    assert all((scores[k], -k) > (scores[n], -n) for k in kept for n in left)


def test_braces_and_control_strings_in_documents_stay_text(stub, endpoint):
    answer_question(endpoint(), FERRY, [0, 0, 0, 1], EXPECTED, 1, 9)
    assert str(FERRY.documents[3].text) in stub.messages[0]
    generator = LocalGenerator.from_pretrained(GOLDEN / "tiny-llama", device="cpu")
    control = generator.prompts.tokens.control_ids
    seen = []

    class Spy:
        name, tokenizer = "spy", None

        def generate(self, message, max_new_tokens):
            seen.append([i for i in generator.prompts.wrap(message) if i in control])
            return ""

    answer_question(Spy(), FERRY, [0, 0, 0, 1], EXPECTED, 1, 9)
    answer_question(Spy(), FERRY, [0, 1, 0, 0], EXPECTED, 1, 9)
    assert seen[0] == seen[1]


def test_the_message_does_not_tell_whether_there_is_an_answer(stub, endpoint):
    for abstain in (False, True):
        answer_question(endpoint(), FERRY, SCORES, Expected(EXPECTED.question, "secret", "kind", abstain=abstain), 2, 9)
    assert stub.messages[0] == stub.messages[1]
    assert "secret" not in stub.messages[0]
    answer_question(endpoint(), FERRY, SCORES, CLAIM, 2, 9)
    assert "TRUE, FALSE" in stub.messages[2].split("\n\n")[0]


def test_a_context_that_does_not_fit_is_refused_not_cut():
    generator = LocalGenerator.from_pretrained(GOLDEN / "tiny-llama", device="cpu")
    with pytest.raises(ContextLengthError, match="more than the context"):
        answered(FERRY, None, EXPECTED, generator, None, 2, 10**6)


# The way from a question to its outcome


def test_a_judged_answer(stub, judge_stub, endpoint):
    outcome = answered(FERRY, SCORES, EXPECTED, endpoint(), Judge(endpoint(judge_stub)), 1, 9)
    assert outcome == Outcome("Blue.", True, "Yes.")
    for part in (EXPECTED.question, EXPECTED.answer, "Blue."):
        assert part in judge_stub.messages[0]
    judge_stub.says("**No**, it is red.")
    assert answered(FERRY, SCORES, EXPECTED, endpoint(), Judge(endpoint(judge_stub)), 1, 9).right is False


def test_without_a_judge_a_reply_stays_unjudged(stub, endpoint):
    assert answered(FERRY, SCORES, EXPECTED, endpoint(), None, 1, 9) == Outcome("Blue.", None)


@pytest.mark.parametrize(
    ("reply", "right", "unparsed"),
    [
        ("The claim is **true**.", True, False),
        ("False", False, False),
        ("I cannot tell.", False, True),
        ("", False, True),
        ("<think>true or false?</think>false", False, False),
        ("<think>it may be true, or", False, True),
    ],
)
def test_labels_are_read_and_not_judged(stub, judge_stub, endpoint, reply, right, unparsed):
    stub.says(reply)
    outcome = answered(FERRY, SCORES, CLAIM, endpoint(), Judge(endpoint(judge_stub)), 1, 9)
    assert outcome == Outcome(reply, right, "", unparsed)
    assert not judge_stub.seen


def test_a_blank_reply_is_wrong_and_not_judged(stub, judge_stub, endpoint):
    stub.says("<think>Hm.</think> ")
    outcome = answered(FERRY, SCORES, EXPECTED, endpoint(), Judge(endpoint(judge_stub)), 1, 9)
    assert (outcome.right, outcome.unparsed) == (False, True)
    assert not judge_stub.seen


def test_thoughts_are_kept_and_not_judged(stub, judge_stub, endpoint):
    stub.says("<think>Red?</think>Blue.")
    assert answered(FERRY, SCORES, EXPECTED, endpoint(), Judge(endpoint(judge_stub)), 1, 9).reply.startswith("<think>")
    assert "Red?" not in judge_stub.messages[0]


@pytest.mark.parametrize(
    "trouble",
    [(429, {"error": "busy"}, 0), (503, {"error": "oops"}, 0), (200, {"choices": []}, 0), (200, completion("?"), 1)],
    ids=["429", "503", "malformed", "time-out"],
)
@pytest.mark.parametrize("at_judge", [False, True])
def test_passing_trouble_is_outlived(stub, judge_stub, endpoint, trouble, at_judge):
    server = judge_stub if at_judge else stub
    server.script = [trouble, *server.script]
    options = {"model": "m", "timeout": 0.3}
    judge = Judge(endpoint(judge_stub, **options))
    assert answered(FERRY, SCORES, EXPECTED, endpoint(**options), judge, 1, 9) == Outcome("Blue.", True, "Yes.")
    assert len(server.seen) == 2


def test_lasting_trouble_is_one_error(stub, endpoint):
    stub.script = [(200, completion("late"), 1)]
    with pytest.raises(GenerationError, match="did not answer in time"):
        answered(FERRY, SCORES, EXPECTED, endpoint(model="m", timeout=0.2, retries=1), None, 1, 9)
    assert len(stub.seen) == 2
    stub.script = [(200, {"surprise": 1}, 0)]
    with pytest.raises(GenerationError, match="is not a chat completion"):
        answered(FERRY, SCORES, EXPECTED, endpoint(model="m"), None, 1, 9)
    assert len(stub.seen) == 5


def test_input_errors_are_not_tried_again(stub, endpoint):
    stub.models = ["one", "two"]
    with pytest.raises(InputError, match="serves 2 models"):
        answered(FERRY, SCORES, EXPECTED, endpoint(), None, 1, 9)
    assert not stub.seen


def test_an_embedded_model_answers_and_judges(embedded_fast, monkeypatch):
    """Mechanics: replies are what it writes; too small to keep to yes and no, it is asked as often as allowed."""
    generator = LocalGenerator(embedded_fast.source, "mini")
    asked, generate = [], generator.generate
    monkeypatch.setattr(generator, "generate", lambda *question: asked.append(question) or generate(*question))
    claim = answered(FERRY, SCORES, CLAIM, generator, None, 2, 4)
    assert [room for _, room in asked] == [4]
    assert claim.reply == generate(*asked[0])
    assert claim.unparsed == (read_label(claim.reply, CLAIM.labels) is None)
    judge = Judge(generator, "Is {reply} {answer}?", tries=2, max_new_tokens=2)
    with pytest.raises(JudgeError, match="the judge mini said neither yes nor no in 2 tries"):
        answered(FERRY, SCORES, EXPECTED, generator, judge, 2, 4)
    assert [room for _, room in asked[1:]] == [4, 2, 2]


# Outcomes and accuracy


@pytest.mark.parametrize("outcome", [Outcome("Blue {", True, "yes"), Outcome("", None), Outcome("x", False, "", True)])
def test_outcomes_outlive_a_journal(outcome):
    line = json.dumps({"query-id": "q", **outcome.to_dict(), "seconds": 1.0})
    assert Outcome.from_dict(json.loads(line)) == outcome


@pytest.mark.parametrize("change", [{"right": 1}, {"reply": None}, {"unparsed": "no"}, {"judge_reply": 2}])
def test_damaged_outcomes_are_named(change):
    with pytest.raises(InputError, match=f"{next(iter(change))!r} is missing or of the wrong type"):
        Outcome.from_dict({**Outcome("x", True).to_dict(), **change})
    with pytest.raises(InputError, match="'reply' is missing"):
        Outcome.from_dict({})


def test_accuracy_by_kind_with_failures():
    expected = {str(n): Expected("?", "!", "even" if n % 2 == 0 else "odd") for n in range(6)}
    outcomes = {
        "0": Outcome("a", True, "yes"),
        "1": Outcome("b", False, "no"),
        "2": Outcome("c", False, unparsed=True),
        "3": Outcome("d", True, "yes"),
        "4": Outcome("e", None),
        "gone": Outcome("f", True, "yes"),
    }
    found = accuracy(outcomes, expected)
    assert found["per_query"] == found["per_unit"] == {"0": 1.0, "1": 0.0, "2": 0.0, "3": 1.0}
    assert found["accuracy"]["mean"] == 0.5
    assert found["accuracy"]["queries"] == 4
    assert {kind: (s["mean"], s["queries"]) for kind, s in found["kinds"].items()} == {
        "even": (0.5, 2),
        "odd": (0.5, 2),
    }
    assert (found["questions"], found["failed"], found["failed_units"], found["unparsed"]) == (6, 2, 2, 1)
    json.dumps(found)


def test_a_pair_counts_only_when_both_are_right():
    yes, no = Outcome("TRUE", True), Outcome("FALSE", False)
    expected = {f"{unit}{half}": Expected("?", "TRUE", half, unit=unit) for unit in "pqrs" for half in "tf"}
    expected["p"] = Expected("?", "TRUE", "t")  # on its own, although a unit has its id
    outcomes = {"pt": yes, "pf": yes, "qt": yes, "qf": no, "rt": yes, "st": no, "p": yes}
    found = accuracy(outcomes, expected)
    assert found["per_unit"] == {"pt": 1.0, "qt": 0.0, "p": 1.0}
    assert found["accuracy"]["mean"] == pytest.approx(2 / 3)
    assert (found["questions"], found["failed"], found["failed_units"]) == (9, 2, 2)
    # By kind, only the halves of that kind count: r and s failed in the other kind.
    assert found["kinds"]["t"]["queries"] == 5
    assert found["kinds"]["t"]["mean"] == pytest.approx(4 / 5)
    assert found["kinds"]["f"]["mean"] == pytest.approx(1 / 2)


def test_accuracy_of_nothing():
    found = accuracy({}, {"q": EXPECTED})
    assert found["accuracy"]["mean"] is None
    assert (found["failed"], found["failed_units"]) == (1, 1)
