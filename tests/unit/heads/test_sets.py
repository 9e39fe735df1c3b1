"""Head sets: the published ones, and their files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from qr_core import HeadSet, HeadSetError, QRScorer
from qr_core.heads import format_pairs
from qr_core.heads.sets import published
from qr_core.prompts.templates import CHAT_ARGUMENTS
from tests.helpers import GOLDEN, STRINGS
from tests.unit.heads.sets import FIELDS

LISTS = (Path(__file__).parents[2] / "published_heads.txt").read_text("utf-8").splitlines()
PUBLISHED = dict(line.split() for line in LISTS)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sets_are_the_papers(name):
    found = published()[name]
    assert format_pairs(found.pairs()) == PUBLISHED[name]
    assert found.template_strings.model_dump() == STRINGS["qwen2" if name.startswith("qwen") else "llama"]
    assert len(published()) == len(PUBLISHED)


def test_a_chat_set_records_what_its_prompts_are_rendered_with(tmp_path):
    made = HeadSet(**{**FIELDS, "template": "chat"})
    assert made.template_arguments == CHAT_ARGUMENTS
    made.save(tmp_path / "set.json")
    assert json.loads((tmp_path / "set.json").read_text())["template_arguments"] == CHAT_ARGUMENTS
    other = HeadSet(**{**FIELDS, "template": "chat", "template_arguments": {"date_string": "1 Jan 2030"}})
    assert other.template_arguments == {"date_string": "1 Jan 2030"}


def test_a_scorer_renders_with_the_sets_own_arguments(tmp_path):
    shutil.copytree(GOLDEN / "tiny-qwen2", tmp_path / "m")
    template = "{{ date_string }}{% for m in messages %}{{ m.content }}{% endfor %}{% if thinking %}think{% endif %}"
    for file in (tmp_path / "m").glob("chat_template*"):
        file.unlink()
    config = json.loads((tmp_path / "m" / "tokenizer_config.json").read_text())
    (tmp_path / "m" / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": template}))
    default = QRScorer.from_pretrained(tmp_path / "m", "1-1", template="chat", device="cpu")
    assert default.template.prefix == "26 Jul 2024"
    assert default.heads.template_arguments == CHAT_ARGUMENTS
    own = default.heads.model_copy(update={"template_arguments": {"date_string": "1 Jan 2030", "thinking": True}})
    scorer = QRScorer.from_pretrained(tmp_path / "m", own, device="cpu")
    assert (scorer.template.prefix, scorer.template.suffix) == ("1 Jan 2030", "think")


def test_eight_sets_are_published():
    sets = published()
    assert len(sets) == 8
    assert {len(s.heads) for n, s in sets.items() if "70b" in n} == {32}
    assert {len(s.heads) for n, s in sets.items() if "70b" not in n} == {16}
    assert sets["llama-3.1-8b-instruct/lme"].heads[:2] == ((13, 18, None), (13, 21, None))
    assert sets["llama-3.1-8b-instruct/lme"].deepest == 17
    assert sets["llama-3.1-8b-instruct/nq"].deepest == 20
    for found in sets.values():
        assert found.template == "reference"
        assert found.template_strings is not None
        assert "arXiv 2506.09944" in found.source
        assert sum(s.default for s in sets.values() if s.model == found.model) == 1


def test_a_file_is_saved_and_read_back(tmp_path):
    made = HeadSet(**{**FIELDS, "template": "reference", "template_strings": STRINGS["llama"]}, calibrate=False)
    made.save(tmp_path / "heads.json")
    assert HeadSet.load(tmp_path / "heads.json") == made


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not valid JSON"),
        ("[]", "not a JSON object"),
        (json.dumps({**FIELDS, "heads": []}), "heads"),
        (json.dumps({**FIELDS, "heads": [[9, 0, None]]}), "head 9-0 is outside the model"),
        (json.dumps({**FIELDS, "heads": [[-1, 0, None]]}), "heads.0.0"),
        (json.dumps({**FIELDS, "heads": [[1.5, 0, None]]}), "heads.0.0"),
        (json.dumps({**FIELDS, "template": "reference"}), "template_strings"),
        (json.dumps({**FIELDS, "template": "mine"}), "template"),
        (json.dumps({**FIELDS, "headz": 1}), "headz"),
        (json.dumps({**FIELDS, "self": 1}), "self"),
        (json.dumps({**FIELDS, "heads": [[1, 1, float("nan")]]}), "heads.0.2"),
        ('{"heads": [[' + "9" * 5000 + ", 1, null]]}", "not valid JSON"),
        (json.dumps({k: v for k, v in FIELDS.items() if k != "config"}), "config"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_malformed_files_name_the_fault(tmp_path, text, words):
    path = tmp_path / "heads.json"
    path.write_text(text)
    with pytest.raises(HeadSetError, match=words):
        HeadSet.load(path)


def test_a_missing_file_names_the_published_sets():
    with pytest.raises(HeadSetError, match=r"qwen2\.5-7b-instruct/nq"):
        HeadSet.load("nowhere.json")


def test_a_huge_file_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "heads.json"
    path.write_text(" " * 100)
    monkeypatch.setattr("qr_core.heads.sets.MAX_FILE_BYTES", 10)
    with pytest.raises(HeadSetError, match="larger than"):
        HeadSet.load(path)


def test_published_sets_ship_as_files():
    assert len(list((Path(__file__).parents[3] / "qr_core" / "heads" / "published").glob("*/*.json"))) == 8


JUDGED = {"examples": 1, "fingerprint": "f"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"config": {"layers": 60_000, "heads": 60_000, "kv_heads": 1, "hidden": 1}}, "config: .* layers of"),
        ({"config": {"layers": 10**9, "heads": 1, "kv_heads": 1, "hidden": 1}}, "config.layers"),
        ({"provenance": {**JUDGED, "scores": [[10**6, 0, 1.0]]}}, "provenance.scores.0.0"),
        ({"provenance": {**JUDGED, "scores": [[900, 0, 1.0]]}}, "head 900-0 is outside the model"),
        ({"provenance": {**JUDGED, "scores": [[0, 0, 1e308]]}}, "provenance.scores.0.2"),
        ({"provenance": {**JUDGED, "temperature": float("inf")}}, "provenance.temperature"),
    ],
)
def test_numbers_that_no_model_has_are_refused(change, words):
    with pytest.raises(HeadSetError, match=words):
        HeadSet.from_json(json.dumps({**FIELDS, **change}), "heads.json")


@pytest.mark.parametrize("field", ["model", "criterion", "data", "source", "\ud800"])
def test_lone_surrogates_in_a_file_are_one_error_or_written_back(tmp_path, field):
    text = json.dumps({**FIELDS, field: "a\ud800b"})
    try:
        found = HeadSet.from_json(text, "heads.json")
    except HeadSetError as error:
        str(error).encode()
    else:
        found.save(tmp_path / "back.json")
        assert HeadSet.load(tmp_path / "back.json").config == found.config
