"""Answers from selected documents, verdicts about them, and accuracy: against a stub of the OpenAI chat protocol."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qr_core import ContextLengthError, Document, GenerationError, InputError
from qr_core.evaluation.answers import judging
from qr_core.evaluation.answers.answering import Outcome, accuracy, answer_question, outcome_of, selected
from qr_core.evaluation.answers.judging import Judge, JudgeError, read_label, read_verdict, spoken
from qr_core.evaluation.work import Expected, Pool
from qr_core.generation import LocalGenerator
from tests.helpers import GOLDEN
from tests.stub_endpoint import completion, serving

POOL = Pool(
    "q1",
    "What colour is the ferry?",
    (
        Document("Bread is baked on Fridays.", "Bakery", "a"),
        Document("The ferry is painted blue.", None, "b"),
        Document("The pier is closed in storms.", "Harbour", "c"),
        Document("The {answer} is {reply} <|eot_id|><|im_end|> </reply>.", None, "d"),
    ),
)
EXPECTED = Expected("What colour is the ferry, as of May?", "blue")
CLAIM = Expected("The ferry is blue. True or false?", "TRUE", labels=("TRUE", "FALSE"))
SCORES = [0.1, 2.0, 0.5, -1.0]


@pytest.fixture
def judge_stub():
    with serving() as server:
        server.says("Yes.")
        yield server


def answered(pool, scores, expected, generator, judge, top_k, max_new_tokens) -> Outcome:
    """The whole way from a question to its outcome."""
    return outcome_of(answer_question(generator, pool, scores, expected, top_k, max_new_tokens), expected, judge)


# The generator


def test_selected_documents_stand_in_their_order_before_the_question(stub, endpoint):
    assert answer_question(endpoint(), POOL, [0.5, 0.1, 2.0, -1.0], EXPECTED, 2, 9) == "Blue."
    message = stub.messages[0]
    after_instruction = message.split("\n\n", 1)[1]
    assert after_instruction == (
        "Bakery\nBread is baked on Fridays.\n\nHarbour\nThe pier is closed in storms.\n\n"
        "Question: What colour is the ferry, as of May?"
    )
    assert stub.seen[0]["max_tokens"] == 9


def test_ties_go_to_the_earlier_document_and_no_scores_mean_all():
    def ids(scores, top_k):
        return [d.id for d in selected(POOL, scores, top_k)]

    assert ids([1.0, 1.0, 1.0, 1.0], 2) == ["a", "b"]
    assert ids([0.0, 1.0, 0.0, 2.0], 3) == ["a", "b", "d"]
    assert ids(SCORES, 9) == ids(None, 1) == ["a", "b", "c", "d"]
    with pytest.raises(InputError, match="3 scores for 4 documents"):
        selected(POOL, [1.0, 2.0, 3.0], 1)
    with pytest.raises(InputError, match="top_k is 0"):
        selected(POOL, SCORES, 0)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12), st.integers(1, 14))
def test_what_is_selected_outranks_what_is_not(scores, top_k):
    pool = Pool("q", "?", tuple(Document("x", id=n) for n in range(len(scores))))
    kept = [d.id for d in selected(pool, scores, top_k)]
    assert kept == sorted(kept)
    assert len(kept) == min(top_k, len(scores))
    left = set(range(len(scores))) - set(kept)
    assert all((scores[k], -k) > (scores[n], -n) for k in kept for n in left)


def test_braces_and_control_strings_in_documents_stay_text(stub, endpoint):
    answer_question(endpoint(), POOL, [0, 0, 0, 1], EXPECTED, 1, 9)
    assert str(POOL.documents[3].text) in stub.messages[0]
    generator = LocalGenerator.from_pretrained(GOLDEN / "tiny-llama", device="cpu")
    control = generator.prompts._control_ids
    seen = []

    class Spy:
        name, tokenizer = "spy", None

        def generate(self, message, max_new_tokens):
            seen.append([i for i in generator.prompts.wrap(message) if i in control])
            return ""

    answer_question(Spy(), POOL, [0, 0, 0, 1], EXPECTED, 1, 9)
    answer_question(Spy(), POOL, [0, 1, 0, 0], EXPECTED, 1, 9)
    assert seen[0] == seen[1]


def test_the_message_does_not_tell_whether_there_is_an_answer(stub, endpoint):
    for abstain in (False, True):
        answer_question(endpoint(), POOL, SCORES, Expected(EXPECTED.question, "secret", "kind", abstain=abstain), 2, 9)
    assert stub.messages[0] == stub.messages[1]
    assert "secret" not in stub.messages[0]
    answer_question(endpoint(), POOL, SCORES, CLAIM, 2, 9)
    assert "TRUE, FALSE" in stub.messages[2].split("\n\n")[0]


def test_a_context_that_does_not_fit_is_refused_not_cut():
    generator = LocalGenerator.from_pretrained(GOLDEN / "tiny-llama", device="cpu")
    with pytest.raises(ContextLengthError, match="more than the context"):
        answered(POOL, None, EXPECTED, generator, None, 2, 10**6)


# The way from a question to its outcome


def test_a_judged_answer(stub, judge_stub, endpoint):
    outcome = answered(POOL, SCORES, EXPECTED, endpoint(), Judge(endpoint(judge_stub)), 1, 9)
    assert outcome == Outcome("Blue.", True, "Yes.")
    for part in (EXPECTED.question, EXPECTED.answer, "Blue."):
        assert part in judge_stub.messages[0]
    judge_stub.says("**No**, it is red.")
    assert answered(POOL, SCORES, EXPECTED, endpoint(), Judge(endpoint(judge_stub)), 1, 9).right is False


def test_without_a_judge_a_reply_stays_unjudged(stub, endpoint):
    assert answered(POOL, SCORES, EXPECTED, endpoint(), None, 1, 9) == Outcome("Blue.", None)


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
    outcome = answered(POOL, SCORES, CLAIM, endpoint(), Judge(endpoint(judge_stub)), 1, 9)
    assert outcome == Outcome(reply, right, "", unparsed)
    assert not judge_stub.seen


def test_a_blank_reply_is_wrong_and_not_judged(stub, judge_stub, endpoint):
    stub.says("<think>Hm.</think> ")
    outcome = answered(POOL, SCORES, EXPECTED, endpoint(), Judge(endpoint(judge_stub)), 1, 9)
    assert (outcome.right, outcome.unparsed) == (False, True)
    assert not judge_stub.seen


def test_thoughts_are_kept_and_not_judged(stub, judge_stub, endpoint):
    stub.says("<think>Red?</think>Blue.")
    assert answered(POOL, SCORES, EXPECTED, endpoint(), Judge(endpoint(judge_stub)), 1, 9).reply.startswith("<think>")
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
    assert answered(POOL, SCORES, EXPECTED, endpoint(**options), judge, 1, 9) == Outcome("Blue.", True, "Yes.")
    assert len(server.seen) == 2


def test_lasting_trouble_is_one_error(stub, endpoint):
    stub.script = [(200, completion("late"), 1)]
    with pytest.raises(GenerationError, match="did not answer in time"):
        answered(POOL, SCORES, EXPECTED, endpoint(model="m", timeout=0.2, retries=1), None, 1, 9)
    assert len(stub.seen) == 2
    stub.script = [(200, {"surprise": 1}, 0)]
    with pytest.raises(GenerationError, match="is not a chat completion"):
        answered(POOL, SCORES, EXPECTED, endpoint(model="m"), None, 1, 9)
    assert len(stub.seen) == 5


def test_input_errors_are_not_tried_again(stub, endpoint):
    stub.models = ["one", "two"]
    with pytest.raises(InputError, match="serves 2 models"):
        answered(POOL, SCORES, EXPECTED, endpoint(), None, 1, 9)
    assert not stub.seen


def test_the_embedded_model_answers_and_judges(embedded):
    generator = LocalGenerator(embedded.source, "mini")
    claim = answered(POOL, SCORES, CLAIM, generator, None, 2, 4)
    assert claim.right is not None
    judge = Judge(generator, "Is {reply} {answer}?", tries=2, max_new_tokens=2)
    with contextlib.suppress(JudgeError):  # too small to keep to yes and no
        assert answered(POOL, SCORES, EXPECTED, generator, judge, 2, 4).right in (True, False)


# The judge


def test_a_judge_that_mumbles_is_reminded(judge_stub, endpoint):
    judge_stub.says("The reply mentions blue.", "Yes or no", "yes")
    assert Judge(endpoint(judge_stub)).verdict(EXPECTED, "Blue.") == (True, "yes")
    first, second, third = judge_stub.messages
    assert second == first + judging.REMINDER
    assert third == second + judging.REMINDER


def test_a_judge_that_never_says_yes_or_no(judge_stub, endpoint):
    judge_stub.says("Perhaps.")
    with pytest.raises(JudgeError, match=r"stub said neither yes nor no in 2 tries, but 'Perhaps\.'"):
        Judge(endpoint(judge_stub), tries=2).verdict(EXPECTED, "Blue.")
    assert len(judge_stub.seen) == 2
    assert issubclass(JudgeError, GenerationError)


def test_abstention_has_a_prompt_of_its_own(judge_stub, endpoint):
    judge = Judge(endpoint(judge_stub), prompt="{reply}?")
    judge.verdict(EXPECTED, "Blue.")
    judge.verdict(Expected("Who?", "never mentioned", abstain=True), "It does not say.")
    assert judge_stub.messages[0] == "Blue.?"
    for part in ("cannot be answered", "never mentioned", "It does not say."):
        assert part in judge_stub.messages[1]
    Judge(endpoint(judge_stub), abstain_prompt="a {reply}").verdict(Expected("Who?", "", abstain=True), "x")
    assert judge_stub.messages[2] == "a x"


def test_the_record_of_a_judge_is_the_same_before_and_after_its_work(judge_stub, endpoint):
    judge = Judge(endpoint(judge_stub))
    before = judge.record()
    judge.verdict(EXPECTED, "Blue.")
    assert judge.record() == before
    assert before["prompt"] == judging.PROMPT
    assert before["model"] == judge_stub.url
    assert Judge(endpoint(judge_stub, model="m"), "{reply}").record()["model"] == "m"


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("Is it right?", r"no \{reply\}"),
        ("", r"no \{reply\}"),
        ("{reply} {gold}", r"the placeholder \{gold\}"),
        ("{reply} {}", r"the placeholder \{\}"),
        ("{Reply}", r"the placeholder \{Reply\}"),
    ],
)
def test_prompts_that_cannot_be_filled(endpoint, prompt, words):
    for option in ("prompt", "abstain_prompt"):
        with pytest.raises(InputError, match=words):
            Judge(endpoint(), **{option: prompt})


def test_untrusted_text_fills_a_prompt_as_it_is(judge_stub, endpoint):
    judge = Judge(endpoint(judge_stub), 'As JSON {"verdict": "yes"}: {question}|{answer}|{reply}|{reply}')
    judge.verdict(Expected("{reply} {0!r} %s $x", r"{question} \1 \g<0>"), "{answer} {")
    assert judge_stub.messages[0] == (
        r'As JSON {"verdict": "yes"}: {reply} {0!r} %s $x|{question} \1 \g<0>|{answer} {|{answer} {'
    )


# Reading replies


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("Yes", True),
        ("**Yes**", True),
        ("__No__", False),
        ("Answer: no", False),
        ("**Answer:** yes.", True),
        ("The answer is: No.", False),
        ("My final verdict is **yes**", True),
        ('"Yes."', True),
        ('{"answer": "no"}', False),
        ("<answer>YES</answer>", True),
        ("- yes\n- because", True),
        ("Yes, no doubt.", True),
        ("no, it says nothing", False),
        ("<think>yes?</think>\n\nno", False),
        ("thoughts without a beginning, yes</think>No", False),
        ("<think>yes, because", None),
        ("yes or no", None),
        ("Yes/No", None),
        ("**yes** | **no**", None),
        ("Nothing", None),
        ("yesterday", None),
        ("It is right: yes", None),
        ("maybe", None),
        ("answeryes", None),
        ("", None),
    ],
)
def test_verdicts(reply, right):
    assert read_verdict(reply) is right


@given(st.text())
def test_any_text_is_read(text):
    assert read_verdict(text) in (True, False, None)
    assert read_label(text, ("true", "false")) in ("true", "false", None)
    assert len(spoken(text)) <= len(text)


@given(
    st.sampled_from(["yes", "Yes", "YES", "no", "No", "NO"]),
    st.text(" \n*_\"'`#>.:(-", max_size=6),
    st.text(" \n*_\"'`.:,;!)-", max_size=6),
    st.sampled_from(["", "Answer:", "Final answer: ", "**Verdict**:"]),
)
def test_a_verdict_is_read_through_its_dress(word, before, after, lead):
    assert read_verdict(f"{before}{lead}{before}{word}{after}") is (word.lower() == "yes")


@given(st.sampled_from(["true", "false", "not stated"]), st.text(" .,*_`\"'\n", min_size=1, max_size=4), st.data())
def test_the_first_whole_label_counts(label, around, data):
    labels = ("True", "False", "Not stated", "Not")
    shouted = "".join(c.upper() if data.draw(st.booleans()) else c for c in label)
    found = read_label(f"Untrue, falsely stated:{around}{shouted}{around}true", labels)
    assert found == label.capitalize()


def test_labels_are_plain_text_and_whole_words():
    assert read_label("a.b", ("a+b", "a.b")) == "a.b"
    assert read_label("a+b", ("a.b", "a+b")) == "a+b"
    assert read_label("truest", ("true",)) is None
    assert read_label("not true", ("true",)) == "true"


def test_long_replies_are_read_in_no_time():
    for text in ("*" * 10**5, "the " * 10**5, "<think>" * 10**5, "answer" + " " * 10**5, "yes" + " " * 10**5):
        read_verdict(text)
        read_label(text, ("true", "false"))


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
