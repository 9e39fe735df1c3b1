"""`qrhead heads`: what ships, and what is in a set."""

from __future__ import annotations

import json


def test_heads(run):
    status, out, _ = run("heads")
    assert status == 0
    assert "llama-3.1-8b-instruct/lme" in out
    status, out, _ = run("heads", "list", "--format", "json")
    assert len(json.loads(out)["head_sets"]) == 8
    status, out, _ = run("heads", "show", "qwen2.5-7b-instruct/nq")
    assert json.loads(out)["heads"][0][:2] == [16, 19]
    status, _, err = run("heads", "show", "absent")
    assert status == 2
    assert "no head set 'absent'" in err
