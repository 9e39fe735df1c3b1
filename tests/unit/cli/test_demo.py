"""`qrhead demo`."""

from __future__ import annotations


def test_demo_finds_the_right_articles(run):
    status, out, _ = run("demo")
    assert status == 0
    blocks = out.split("Question: ")[1:]
    assert len(blocks) >= 5
    first = [next(line for line in block.splitlines() if line.strip().startswith("1 ")) for block in blocks]
    assert [line.split()[3] for line in first] == ["kb-02", "kb-04", "kb-06", "kb-03", "kb-17", "kb-13"]
    assert "qrhead-mini" in out
    pruned = out.split("House manual, ")[1:]
    assert len(pruned) == 2
    for block in pruned:
        total, kept = (int(block.split()[place]) for place in (0, 4))
        assert 0 < kept <= 130 < total
        assert "[...]" in block
