"""Make read layers on all-MiniLM-L6-v2, judge or train them, and write the folder that the package embeds.

    python -m qr_core.training.late.train --data DIR --init MINILM --out OUT [--evaluation DIR] [--leave-out SOURCE]

The encoder's own weights stay; a pooling layer is put on top. Its states are computed once; what can be trained are the
read layers' query and key projections, from a start that knows the states' statistics only. With the pooling layer the
start was as good on kinds of text that were not trained on, so that the default recipe takes no step. Sources named by
`--leave-out` are judged, not trained on. `--evaluation` names folders whose text must not be used. Takes 6 GB of memory
and, on one core, a quarter of an hour, most of it for the states.
"""

from __future__ import annotations

import copy
import json
import math
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor
from transformers import AutoTokenizer, BertModel

from qr_core.training import overlap
from qr_core.training.late.grow import Projections, grown, places, rotated, with_pooling
from qr_core.training.late.scoring import Spans, document_scores, loss, masses
from qr_core.training.late.states import PART, States
from qr_core.training.late.texts import Question, add_candidates, read

ROOM = 2
"""Tokens of a passage for the marks at its ends."""
SHARD = "30MB"
"""No file of the folder is larger."""


@dataclass(frozen=True)
class Start:
    """Of a read layer: what comes before it, and the arguments of `rotated`."""

    after: int
    logit: float
    power: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """How it is trained.

    Attributes
    ----------
    label, dense, temperature : float
        The target is `label` times the answers, the rest a softmax over standardised scores of the dense teacher (share
        `dense`) and of BM25.
    stay : float
        Weight of the squared distance to the start, relative to the start's size.
    candidates : int
        Of a question and step, answers among them.
    """

    read: tuple[Start, ...] = (Start(5, 15.0), Start(7, 4.0))
    length_exponent: float = 0.75
    steps: int = 0
    questions: int = 8
    candidates: int = 12
    learning_rate: float = 1e-3
    warmup: int = 20
    stay: float = 0.01
    label: float = 0.5
    dense: float = 0.8
    temperature: float = 0.5
    sharpness: float = 2.0
    seed: int = 0


def recipe_from(values: dict[str, Any]) -> Recipe:
    """A recipe from JSON."""
    if "read" in values:
        values = {**values, "read": tuple(Start(**start) for start in values["read"])}
    return Recipe(**values)


class Reader(torch.nn.Module):
    """The projections that are trained."""

    def __init__(self, starts: dict[int, Projections]) -> None:
        super().__init__()
        self.starts = starts
        self.weights = torch.nn.ParameterDict(
            {
                f"{after} {name}": torch.nn.Parameter(value.clone())
                for after, start in starts.items()
                for name, value in vars(start).items()
            }
        )

    def projections(self) -> dict[int, Projections]:
        """As they are now, by what comes before their layer."""
        return {
            after: Projections(*(self.weights[f"{after} {name}"] for name in ("query", "key", "bias")))
            for after in self.starts
        }

    def distance(self) -> Tensor:
        """Squared distance to the start, of matrices, each relative to the start's size."""
        now = self.projections()
        pairs = [(getattr(now[k], name), getattr(v, name)) for k, v in self.starts.items() for name in ("query", "key")]
        return torch.stack([(a - b).pow(2).sum() / b.pow(2).sum() for a, b in pairs]).sum()


class Scorer:
    """Scores of a question's candidates from states: what the late layout does, differentiable.

    Parameters
    ----------
    texts, questions : States
    numbers : dict of str to int
        The places of the questions among them.
    """

    def __init__(self, texts: States, questions: States, numbers: dict[str, int], heads: int, exponent: float) -> None:
        self.texts, self.questions, self.numbers = texts, questions, numbers
        self.heads, self.exponent = heads, exponent

    def scores(self, question: str, candidates: Sequence[int], read: dict[int, Projections]) -> Tensor:
        """Shape (candidates,)."""
        parts = [self.texts.parts[place] for place in candidates]
        spans = Spans(
            torch.cat([self.texts.lengths[some.start : some.stop] for some in parts]),
            torch.repeat_interleave(torch.arange(len(parts)), torch.tensor([len(some) for some in parts])),
        )
        mass = torch.zeros(int(spans.tokens.sum()))
        for after, projections in read.items():
            keys = torch.cat([self.texts.of(place, after) for place in candidates])
            query = self.questions.of(self.numbers[question], after)
            mass = mass + masses(query, keys, projections, self.heads).sum(dim=0)
        return document_scores(mass, spans, self.exponent)


def target(question: Question, chosen: Sequence[int], recipe: Recipe) -> Tensor:
    """What the shares of the chosen candidates should be; they are places among the question's candidates."""
    answers = torch.tensor([float(question.candidates[i] in question.golds) for i in chosen])
    dense, lexical = (_standardised(scores[list(chosen)]) for scores in (question.dense, question.lexical))
    taught = (recipe.dense * dense + (1 - recipe.dense) * lexical) / recipe.temperature
    return recipe.label * answers / answers.sum() + (1 - recipe.label) * taught.softmax(dim=0)


def _standardised(scores: np.typing.NDArray[np.float32]) -> Tensor:
    values = torch.from_numpy(scores).float()
    return (values - values.mean()) / values.std(correction=0).clamp(min=1e-6)


def ndcg(scores: Sequence[float], answers: Sequence[bool], depth: int = 10) -> float:
    """Normalised discounted cumulative gain of one list; ties keep their order."""
    gains = [1 / math.log2(place + 2) for place in range(depth)]
    order = sorted(range(len(scores)), key=lambda i: -scores[i])[:depth]
    return sum(g for g, i in zip(gains, order, strict=False) if answers[i]) / sum(gains[: sum(answers)])


def judged(questions: dict[str, list[Question]], scorer: Scorer, read: dict[int, Projections]) -> dict[str, float]:
    """Mean nDCG@10 of each source's questions."""
    found = {}
    for source, some in questions.items():
        with torch.no_grad():
            values = [
                ndcg(scorer.scores(q.text, q.candidates, read).tolist(), [c in q.golds for c in q.candidates])
                for q in some
            ]
        found[source] = sum(values) / len(values)
    return found


def train(questions: list[Question], scorer: Scorer, starts: dict[int, Projections], recipe: Recipe) -> Reader:
    """Fit the projections to the questions' targets."""
    rng, reader = random.Random(recipe.seed), Reader(starts)
    sharpness = torch.nn.Parameter(torch.tensor(math.log(recipe.sharpness)))
    groups: list[dict[str, Any]] = [{"params": list(reader.parameters())}, {"params": [sharpness], "lr": 0.01}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, weight_decay=0.0)
    begun = time.monotonic()
    for step in range(recipe.steps):
        rising, falling = min(1.0, (step + 1) / recipe.warmup), 0.5 + 0.5 * math.cos(math.pi * step / recipe.steps)
        optimizer.param_groups[0]["lr"] = recipe.learning_rate * rising * falling
        read, losses = reader.projections(), []
        for question in rng.choices(questions, k=recipe.questions):
            chosen = _some(question, recipe.candidates, rng)
            scores = scorer.scores(question.text, [question.candidates[i] for i in chosen], read)
            losses.append(loss(scores, target(question, chosen, recipe), sharpness.exp()))
        mean = torch.stack(losses).mean()
        optimizer.zero_grad()
        (mean + recipe.stay * reader.distance()).backward()
        optimizer.step()
        if step % 25 == 24:
            done = time.monotonic() - begun
            typer.echo(f"{step + 1} loss {mean.item():.3f} moved {reader.distance().item():.4f} {done:.0f} s")
    return reader


def _some(question: Question, count: int, rng: random.Random) -> list[int]:
    """Places of at most three answers and of other candidates, in a random order."""
    places_of = [i for i, c in enumerate(question.candidates) if c in question.golds][:3]
    others = [i for i, c in enumerate(question.candidates) if c not in question.golds]
    chosen = [*places_of, *rng.sample(others, min(len(others), count - len(places_of)))]
    rng.shuffle(chosen)
    return chosen


def save(model: BertModel, init: Path, out: Path, recipe: Recipe, notes: dict[str, float]) -> None:
    """Write weights in bfloat16, the encoder's tokenizer, and the head set."""
    torch.nn.Module.to(model, torch.bfloat16)
    model.save_pretrained(out, max_shard_size=SHARD)
    tokenizer = AutoTokenizer.from_pretrained(init)
    tokenizer.backend_tokenizer.no_truncation()  # the sentence encoder's own cuts and pads to 128 tokens
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.save_pretrained(out)
    config = model.config
    layers = sorted(places([start.after for start in recipe.read]).values())
    score = sum(notes.values()) / len(notes)
    head_set = {
        "model": "qrhead-mini",
        "config": {
            "layers": config.num_hidden_layers,
            "heads": config.num_attention_heads,
            "kv_heads": config.num_attention_heads,
            "hidden": config.hidden_size,
        },
        "template": "bare",
        "layout": "late",
        "criterion": f"ndcg; together {score:.4f}",
        "data": "training sources' questions, held out from training",
        "heads": [[layer, head, score] for layer in layers for head in range(config.num_attention_heads)],
        "calibrate": False,
        "passage_tokens": PART + ROOM,
        "length_exponent": recipe.length_exponent,
        "default": False,
    }
    (out / "qrhead_heads.json").write_text(json.dumps(head_set, indent=2) + "\n", encoding="utf-8")


def main(
    data: Annotated[Path, typer.Option(help="Folder with the training files.", exists=True, file_okay=False)],
    init: Annotated[Path, typer.Option(help="Folder with all-MiniLM-L6-v2.", exists=True, file_okay=False)],
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    evaluation: Annotated[list[Path] | None, typer.Option(help="Folders with evaluation data.")] = None,
    leave_out: Annotated[list[str] | None, typer.Option(help="Sources that are judged only.")] = None,
    config: Annotated[Path | None, typer.Option(help="JSON file with values of the recipe.", dir_okay=False)] = None,
) -> None:
    """Train read layers and write the model."""
    recipe = recipe_from(json.loads(config.read_text("utf-8"))) if config else Recipe()
    held = overlap.Evaluation(text for folder in evaluation or () for text in overlap.texts_of(folder))
    texts = read(data, held.holds, recipe.seed)
    tokenizer = AutoTokenizer.from_pretrained(init)
    whole = with_pooling(BertModel.from_pretrained(init, dtype=torch.float32))
    encoder = copy.deepcopy(whole)
    torch.nn.Module.to(encoder, torch.bfloat16)
    asked = sorted({q.text for s in texts.sources.values() for q in (*s.training, *s.held_out)})
    typer.echo(f"{len(texts.texts)} texts and {len(asked)} questions are encoded")
    layers = [start.after for start in recipe.read]
    states, questions = (States(encoder, tokenizer, some, layers) for some in (texts.texts, asked))
    add_candidates(texts, states.vectors().numpy(), dict(zip(asked, questions.vectors().numpy(), strict=True)))
    heads = encoder.config.num_attention_heads
    scorer = Scorer(states, questions, {q: i for i, q in enumerate(asked)}, heads, recipe.length_exponent)
    starts = {
        s.after: rotated(states.sample(s.after, 20_000), heads, s.logit, s.power, recipe.seed + s.after)
        for s in recipe.read
    }
    held_out = {name: source.held_out for name, source in texts.sources.items() if source.held_out}
    before = judged(held_out, scorer, starts)
    training = [q for n, s in texts.sources.items() if n not in (leave_out or ()) for q in s.training]
    reader = train(training, scorer, starts, recipe)
    read_layers = {
        after: Projections(*(v.detach() for v in vars(p).values())) for after, p in reader.projections().items()
    }
    after = judged(held_out, scorer, read_layers)
    for source in held_out:
        left = ", left out" if source in (leave_out or ()) else ""
        typer.echo(f"{source}: {before[source]:.3f} untrained, {after[source]:.3f} trained{left}")
    save(grown(whole, read_layers), init, out, recipe, after)
    (out.parent / f"{out.name}-recipe.json").write_text(json.dumps(asdict(recipe), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
