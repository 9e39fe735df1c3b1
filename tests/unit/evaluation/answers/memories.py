"""Questions about colours in LongMemEval's form, and who answers and judges them."""

from __future__ import annotations

import re

from tests.stub_endpoint import completion

COLOURS = ("red", "blue", "green", "white", "black", "amber", "violet", "pink")


def memory(number: int, colour: str) -> dict:
    """A question about a colour that one session of its history names; the last one cannot be answered."""
    abstains = number == len(COLOURS) - 1
    sessions = [
        [{"role": "user", "content": f"Hello, it is day {day}."}, {"role": "assistant", "content": "Good day."}]
        for day in range(6)
    ]
    sessions[number % 6][0]["content"] = f"I painted the {'boat' if abstains else f'door number {number}'} {colour}."
    return {
        "question_id": f"m{number}{'_abs' if abstains else ''}",
        "question_type": ("single-session-user", "temporal-reasoning")[number % 2],
        "question": f"Which colour did I paint the door number {number}?",
        "answer": "The door was not painted." if abstains else colour,
        "question_date": "2031/05/04 (Sun) 10:00",
        "haystack_session_ids": [f"s{number}-{day}" for day in range(6)],
        "haystack_dates": [f"2031/05/0{day + 1}" for day in range(6)],
        "haystack_sessions": sessions,
        "answer_session_ids": [f"s{number}-{number % 6}"],
    }


MEMORIES = [memory(number, colour) for number, colour in enumerate(COLOURS)]


def reads(message: str) -> dict:
    """A completion that says the colour which the sessions in the message name, or that there is none."""
    wanted = re.findall(r"door number (\d+)\?", message)[0]
    found = re.findall(rf"door number {wanted} (\w+)\.", message)
    return completion(found[0] if found else "It does not say.")


def judges(message: str) -> dict:
    reply = re.findall(r"<reply>\n(.*)\n</reply>", message)[0]
    right = re.findall(r"right reply says or does: (.*)", message)
    return completion("yes" if (right[0] == reply if right else "not say" in reply) else "no")


def numbered(message: str) -> int:
    return int(re.findall(r"door number (\d+)\?", message)[0])


def accuracies(report) -> dict:
    return {name: row["accuracy"]["mean"] for name, row in report["systems"].items()}
