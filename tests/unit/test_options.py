"""The one list of scorer options: each of them everywhere, or a reason why not, which the docs give."""

from __future__ import annotations

import inspect
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pytest
import typer.main

import qr_core
from qr_core import InputError, QRScorer, ScorerOptions
from qr_core.chain import ChainOptions
from qr_core.cli.main import COMMANDS, app
from qr_core.fields import option_type
from qr_core.options import PruneOptions
from tests.helpers import GOLDEN

OPTIONS = {one.name: one for one in fields(ScorerOptions)}
COMMANDS_WITH_A_SCORER = ["rank", "prune", "ask", "explain", "serve", "rank-many", "detect", "eval", "bench"]
DOCS = Path(qr_core.__file__).parents[1] / "docs" / "reference" / "scorer.md"

VALUES: dict[str, tuple[list[str], Any]] = {
    "model": (["--model", "m"], "m"),
    "heads": (["--heads", "1-1"], "1-1"),
    "template": (["--template", "chat"], "chat"),
    "layout": (["--layout", "joint"], "joint"),
    "document_cache": (["--document-cache", "folder"], Path("folder")),
    "revision": (["--revision", "r"], "r"),
    "device": (["--device", "cpu"], "cpu"),
    "device_map": (["--device-map", "auto"], "auto"),
    "dtype": (["--dtype", "float16"], "float16"),
    "calibrate": (["--no-calibrate"], False),
    "calibration": (["--calibration", "none"], "none"),
    "retrieval_weight": (["--retrieval-weight", "0.25"], 0.25),
    "filter_tokens": (["--no-token-filter"], False),
    "max_prompt_tokens": (["--max-prompt-tokens", "7"], 7),
    "passage_tokens": (["--passage-tokens", "8"], 8),
    "cache_bytes": (["--cache-bytes", "9"], 9),
    "quantized_cache": (["--quantized-cache", '{"backend": "fp8"}'], {"backend": "fp8"}),
    "allow_model_mismatch": (["--allow-model-mismatch"], True),
    "trust_remote_code": (["--trust-remote-code"], True),
    "allow_pickle": (["--allow-pickle"], True),
}
"""For every option that commands offer: words of the command line, and what they mean."""


def classes_in(kind: Any) -> set[type]:
    """A type, and, if it is an options class, those of its fields."""
    kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    found = {kind}
    if is_dataclass(kind):
        for one in fields(kind):
            if "help" not in one.metadata:
                found |= classes_in(option_type(kind, one))
    return found


def offered(place: str) -> set[str]:
    """The names of a command's parameters."""
    command = typer.main.get_command(app)
    for name in place.split():
        command = command.commands[name]
    return {parameter.name for parameter in command.params}


def left_out(place: str) -> set[str]:
    """The options that a place does not offer."""
    around = {place} if place == "adapters" else {place, "cli"}
    return {name for name, one in OPTIONS.items() if around & set(one.metadata.get("absent", {}))}


def test_which_commands_make_a_scorer():
    found = [
        place
        for place, command in COMMANDS.items()
        if any(
            ScorerOptions in classes_in(p.annotation)
            for p in inspect.signature(command, eval_str=True).parameters.values()
        )
    ]
    assert [place for place in found if place != "heads mask-test"] == COMMANDS_WITH_A_SCORER


@pytest.mark.parametrize("place", COMMANDS_WITH_A_SCORER)
def test_every_option_reaches_every_command_or_says_why_not(place):
    assert OPTIONS.keys() - offered(place) == left_out(place)


def test_every_option_reaches_the_adapters_or_says_why_not():
    assert OPTIONS.keys() - ChainOptions.model_fields.keys() == left_out("adapters")


def test_reasons_are_in_the_docs_and_no_others():
    rows = [line for line in DOCS.read_text("utf-8").splitlines() if line.startswith("| `")]
    expected = [
        f"| `{name}` | {'all commands' if place == 'cli' else f'`{place}`'} | {reason} |"
        for name, one in OPTIONS.items()
        for place, reason in one.metadata.get("absent", {}).items()
    ]
    assert rows == expected


def test_places_of_reasons_exist():
    places = {place for one in OPTIONS.values() for place in one.metadata.get("absent", {})}
    assert places <= {"cli", "adapters", *COMMANDS}


@pytest.mark.parametrize("command", ["rank", "explain", "prune", "ask", "rank-many", "serve"])
def test_what_the_command_line_says_reaches_the_scorer(run, tmp_path, monkeypatch, command):
    made: list[ScorerOptions] = []

    def stopped(options: ScorerOptions) -> QRScorer:
        made.append(options)
        raise InputError("far enough")

    monkeypatch.setattr(QRScorer, "from_options", staticmethod(stopped))
    path = tmp_path / "docs.txt"
    path.write_text("one\ntwo\n")
    asked = {
        "rank": ["--query", "q", "--docs", str(path)],
        "explain": ["--query", "q", "--docs", str(path)],
        "prune": ["--query", "q", "--file", str(path), "--max-tokens", "5"],
        "ask": ["--query", "q", "--file", str(path)],
        "rank-many": ["--input", str(path), "--output", str(tmp_path / "out")],
        "serve": [],
    }[command]
    names = [name for name in VALUES if name in offered(command)]
    assert set(names) == OPTIONS.keys() - left_out(command)
    status, _, err = run(command, *asked, *(word for name in names for word in VALUES[name][0]))
    assert (status, err.strip()) == (2, "qrhead: far enough")
    expected = {name: VALUES[name][1] for name in names}
    if command == "rank-many":
        expected["cache_bytes"] = 0
    assert made == [ScorerOptions(**expected)]


def test_from_pretrained_takes_every_option_by_name():
    tiny = {"heads": "1-1", "template": "plain", "layout": "independent", "calibrate": False, "filter_tokens": False}
    tiny |= {"max_prompt_tokens": 70, "passage_tokens": 8, "cache_bytes": 9, "device": "cpu", "dtype": "float32"}
    scorer = QRScorer.from_pretrained(str(GOLDEN / "tiny-llama"), **tiny)
    assert {name: getattr(scorer.options, name) for name in tiny} == tiny


def test_an_option_that_does_not_exist():
    with pytest.raises(TypeError, match="there is no option 'head': use some of model, heads, "):
        ScorerOptions().changed(head="1-1")
    with pytest.raises(TypeError, match="there is no option 'head'"):
        QRScorer.from_pretrained(head="1-1")


def test_options_that_do_not_go_together():
    with pytest.raises(InputError, match="either device_map or tp_size"):
        ScorerOptions(tp_size=2, device_map="auto")


def test_options_do_not_change():
    with pytest.raises(AttributeError):
        ScorerOptions().model = "other"


@pytest.mark.parametrize("text", ["{", "[1]", "fp8"])
def test_a_quantised_cache_is_a_json_object(run, text):
    status, _, err = run("rank", "--query", "q", "--docs", "-", "--quantized-cache", text, stdin=b"one\n")
    assert status == 2
    assert len(err.strip().splitlines()) == 1
    assert "JSON" in err


def test_a_long_ellipsis_is_refused_before_any_work(tmp_path, run):
    """It stands in every gap, so that a text of many would grow to many times its size."""
    with pytest.raises(InputError, match="ellipsis has 5000 characters: use at most 100"):
        PruneOptions(max_tokens=10, ellipsis="." * 5000)
    with pytest.raises(InputError, match="ellipsis has 5000 characters"):
        PruneOptions(max_tokens=10).changed(ellipsis="." * 5000)
    path = tmp_path / "text.txt"
    path.write_text("One. Two.")
    asked = ["--query", "q", "--file", str(path), "--max-tokens", "5", "--ellipsis", "." * 101]
    for command in ("prune", "ask"):
        status, out, err = run(command, *asked)
        assert (status, out) == (2, "")
        assert "ellipsis has 101 characters" in err
        assert err.count("\n") == 1
