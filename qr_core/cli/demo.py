"""Command line: `qrhead demo`."""

from __future__ import annotations

from importlib.resources import files

from qr_core.cli.common import out, scorer_of
from qr_core.display.terminal import show_ranking
from qr_core.options import ScorerOptions


def demo() -> None:
    """Rank twenty sample support articles, and prune a house manual, with the embedded model."""
    from qr_core.files.inputs import documents_from_json_lines
    from qr_core.heads.pairs import format_pairs

    samples = files("qr_core.demo")
    documents = documents_from_json_lines(samples.joinpath("articles.jsonl").read_text("utf-8"), "articles.jsonl")
    questions = samples.joinpath("questions.txt").read_text("utf-8").splitlines()
    scorer = scorer_of(ScorerOptions())
    heads = format_pairs(sorted(scorer.heads.pairs()), ", ")
    out.print(f"Model {scorer.model_name} (inside the package, offline), heads {heads} (layer-head).")
    out.print(f"{len(documents)} support articles, ranked by the attention that those heads pay to them.\n")
    for ranking in scorer.rank_many((question, documents) for question in questions):
        out.print(f"Question: {ranking.query}", style="bold")
        show_ranking(out, ranking, limit=3)
        out.print()
    manual = samples.joinpath("manual.md").read_text("utf-8")
    for question in samples.joinpath("manual_questions.txt").read_text("utf-8").splitlines():
        kept = scorer.prune(question, manual, max_tokens=130, text_format="markdown", headings=True, ellipsis="[...]")
        out.print(
            f"House manual, {kept.total_tokens} tokens pruned to {kept.kept_tokens} for: {question}", style="bold"
        )
        out.print(kept.text, soft_wrap=False)
        out.print()
    out.print("Your own: qrhead rank --query '...' --dir FOLDER   or   --docs FILE.jsonl   (qrhead rank --help)")
    out.print("          qrhead prune --query '...' --file FILE.md --max-tokens 500        (qrhead prune --help)")
