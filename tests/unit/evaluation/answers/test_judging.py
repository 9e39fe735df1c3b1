"""Judges: what they are asked, and how labels and verdicts are read from replies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qr_core import GenerationError, InputError
from qr_core.evaluation.answers import judging
from qr_core.evaluation.answers.judging import Judge, JudgeError, read_label, read_verdict, spoken
from qr_core.evaluation.work import Expected
from tests.unit.evaluation.answers.ferry import EXPECTED

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
