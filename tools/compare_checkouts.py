"""Compare two checkouts on this machine: times, forward passes, bytes held and scores, as a table of new against old.

    python tools/compare_checkouts.py --old CHECKOUT [--new CHECKOUT] [--models embedded,random] [--documents 30]

Each measurement is a fresh process with one of the checkouts on its path; the two take turns, and a ratio is the median
of the ratios within a round. Only what `qr_core` has offered from the start is called, so old checkouts run too. Texts,
the random model and the way bytes are counted are those of the checkout that this file is in.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NO_BOUND = 2**40
VARIANTS = {
    "joint": "one query, one prompt, nothing encoded before",
    "second": "another query over the same documents, joint layout",
    "independent-cold": "one query, documents encoded independently, nothing encoded before",
    "independent-second": "another query over the same documents, independent layout",
    "independent-warm": "another query over a new combination of documents that were encoded before",
    "many-joint": "several other queries over the same documents at once, joint layout",
    "many-independent": "the same in the independent layout",
}


def main() -> int:
    """Measure in turn and print the tables."""
    asked = arguments()
    with tempfile.TemporaryDirectory() as folder:
        for model in asked.models.split(","):
            given = prepared(model, Path(folder), asked)
            found: dict[str, list[dict[str, Any]]] = {"old": [], "new": []}
            for number in range(asked.rounds):
                for which in ("old", "new") if number % 2 == 0 else ("new", "old"):
                    print(f"{model}, round {number + 1} of {asked.rounds}: {which}", file=sys.stderr)
                    found[which].append(measured(getattr(asked, which), given | {"held": asked.held * (number == 0)}))
            show(model, found, asked)
    return 0


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, required=True, help="checkout to compare with")
    parser.add_argument("--new", type=Path, default=ROOT, help="checkout that is compared; by default this one")
    parser.add_argument("--models", default="embedded,random", help="embedded, random, or both")
    parser.add_argument("--variants", default=",".join(VARIANTS), help=f"some of {', '.join(VARIANTS)}")
    parser.add_argument("--documents", type=int, default=30, help="documents of about a hundred words")
    parser.add_argument("--queries", type=int, default=32, help="queries of `many-joint` and `many-independent`")
    parser.add_argument("--held", type=int, default=100, help="documents after whose ranking held bytes are counted")
    parser.add_argument("--rounds", type=int, default=5, help="processes of each checkout")
    parser.add_argument("--repeats", type=int, default=3, help="runs in each process; the median counts")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="cpu", help="seconds of the wall or the processor")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def prepared(model: str, folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """What every process of a model is told; a random model is written to `folder`."""
    sys.path.insert(0, str(ROOT))
    from qr_core.benchmark.task import task_of
    from qr_core.mini import embedded_model

    task = task_of(asked.documents, asked.queries + 1)
    given = {
        "model": None,
        "heads": None,
        "template": None,
        "device": asked.device,
        "documents": [document.text for document in task.documents],
        "combination": [document.text for document in task.combination],
        "queries": list(task.queries),
        "more": [document.text for document in task_of(asked.held).documents],
        "variants": asked.variants.split(","),
        "repeats": asked.repeats,
        "clock": asked.clock,
    }
    if model == "embedded":
        return given | {"model": str(embedded_model("embedded-fast"))}  # a folder, for checkouts that know no names
    import torch
    from transformers import AutoModel, AutoTokenizer

    from qr_core.benchmark.plan import Shape
    from qr_core.benchmark.subject import spread
    from qr_core.heads.parts import HeadShape

    torch.manual_seed(0)
    config = Shape().config()
    AutoModel.from_config(config, dtype=torch.bfloat16).save_pretrained(folder / "random")
    AutoTokenizer.from_pretrained(embedded_model()).save_pretrained(folder / "random")
    heads = spread("random", HeadShape.of(config), config.num_hidden_layers * 9 // 16).heads
    pairs = ",".join(f"{layer}-{head}" for layer, head, _ in heads)
    return given | {"model": str(folder / "random"), "heads": pairs, "template": "plain"}


def measured(checkout: Path, given: dict[str, Any]) -> dict[str, Any]:
    """What a fresh process finds with `checkout` on its path."""
    path = os.pathsep.join([str(checkout.resolve()), str(checkout.resolve() / "integrations")])
    environment = os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, "--measure"]
    done = subprocess.run(
        command, input=json.dumps(given), env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if not Path(found["package"]).is_relative_to(checkout.resolve()):
        raise RuntimeError(f"measured {found['package']} in place of {checkout}")
    return found


def measure(given: dict[str, Any]) -> dict[str, Any]:
    """In such a process: the variants' seconds, forward passes and scores, and bytes held."""
    import qr_core

    clock = time.process_time if given["clock"] == "cpu" else time.perf_counter
    held_by_model = scorer_of(given, "joint")  # which keeps the weights loaded
    held_by_model.rank(given["queries"][0], given["documents"][:2])
    scorer_of(given, "independent").rank(given["queries"][0], given["documents"][:2])
    found: dict[str, Any] = {"package": qr_core.__file__, "variants": {}, "held": {}}
    for name in given["variants"]:
        before, run = variant(name, given)
        seconds = []
        for _ in range(given["repeats"]):
            scorer = before()
            start = clock()
            ranking = run(scorer)
            seconds.append(clock() - start)
        scorer = before()
        with passes() as count:
            run(scorer)
        scores = [hit.score for hit in sorted(ranking, key=lambda hit: hit.index)]
        found["variants"][name] = {"seconds": statistics.median(seconds), "passes": len(count), "scores": scores}
    if given["held"]:
        held_bytes = runpy.run_path(str(ROOT / "qr_core" / "benchmark" / "held.py"))[
            "held_bytes"
        ]  # whatever is measured
        for layout in ("joint", "independent"):
            scorer = scorer_of(given, layout)
            scorer.rank(given["queries"][0], given["more"])
            found["held"][layout] = held_bytes(scorer.cache, scorer.document_cache)
    return found


def scorer_of(given: dict[str, Any], layout: str, cache_bytes: int = NO_BOUND) -> Any:
    """A scorer that has encoded nothing."""
    from qr_core import QRScorer
    from qr_core.document_cache import DocumentCache

    return QRScorer.from_pretrained(
        given["model"],
        given["heads"],
        template=given["template"],
        layout=layout,
        device=given["device"],
        max_prompt_tokens=2**17,
        cache_bytes=cache_bytes,
        document_cache=DocumentCache(NO_BOUND) if layout == "independent" else None,
    )


def variant(name: str, given: dict[str, Any]) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    """What makes a variant's scorer, which is not measured, and what is."""
    first, *others = given["queries"]
    documents, combination = given["documents"], given["combination"]
    layout = "joint" if name in ("joint", "second", "many-joint") else "independent"
    if name in ("joint", "independent-cold"):
        return lambda: scorer_of(given, layout), lambda scorer: scorer.rank(first, documents)
    warm = scorer_of(given, layout, 0 if name == "independent-warm" else NO_BOUND)  # 0: combined anew each time
    warm.rank(first, documents)
    if name == "independent-warm":
        warm.rank(first, combination)
        return lambda: warm, lambda scorer: scorer.rank(others[-1], combination)
    if name in ("second", "independent-second"):
        return lambda: warm, lambda scorer: scorer.rank(others[-1], documents)
    jobs = [(query, documents) for query in others]
    return lambda: warm, lambda scorer: scorer.rank_many(jobs)[-1]


@contextmanager
def passes() -> Iterator[list[None]]:
    """A list that grows by one with each forward pass of a model."""
    from torch.nn.modules.module import register_module_forward_pre_hook
    from transformers import PreTrainedModel

    found: list[None] = []
    hook = register_module_forward_pre_hook(
        lambda module, _: found.append(None) if isinstance(module, PreTrainedModel) else None
    )
    try:
        yield found
    finally:
        hook.remove()


def show(model: str, found: dict[str, list[dict[str, Any]]], asked: argparse.Namespace) -> None:
    """Print a model's tables, as Markdown."""
    print(f"\n{model}, {asked.documents} documents, {asked.clock} seconds, median of {asked.rounds} rounds\n")
    print("| variant | old s | new s | new / old | least and most | passes old, new | largest difference of scores |")
    print("|---|---|---|---|---|---|---|")
    for name in asked.variants.split(","):
        old, new = ([one["variants"][name] for one in found[which]] for which in ("old", "new"))
        ratios = [b["seconds"] / a["seconds"] for a, b in zip(old, new, strict=True)]
        times = [statistics.median(one["seconds"] for one in some) for some in (old, new)]
        apart = max(abs(a - b) for a, b in zip(old[0]["scores"], new[0]["scores"], strict=True))
        print(
            f"| {name} | {times[0]:.4f} | {times[1]:.4f} | {statistics.median(ratios):.3f} "
            f"| {min(ratios):.3f}, {max(ratios):.3f} | {old[0]['passes']}, {new[0]['passes']} | {apart:.1e} |"
        )
    if asked.held:
        print(f"\n| layout | MiB held after one rank of {asked.held} documents, old | new | new / old |")
        print("|---|---|---|---|")
        for layout, before in found["old"][0]["held"].items():
            after = found["new"][0]["held"][layout]
            print(f"| {layout} | {before / 2**20:.1f} | {after / 2**20:.1f} | {after / before:.3f} |")


if __name__ == "__main__":
    if sys.argv[1:] == ["--measure"]:
        print(json.dumps(measure(json.load(sys.stdin))))
    else:
        sys.exit(main())
