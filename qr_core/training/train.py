"""Train the embedded decoder (`embedded-fast`): its heads look at the passages that answer a question.

    python -m qr_core.training.train --data DIR --init DIR --out DIR [--start DIR] [--evaluation DIR] [--config FILE]

`--data` holds the files `qr_core.training.data` names. `--init` is a folder with all-MiniLM-L6-v2 (Apache-2.0): the
model has its tokenizer, learns from it and, unless `--start` names a model or a run to go on from, starts from its
states of words. `--out` receives the teacher's vectors, checkpoints, the curve (`curve.jsonl`) and the model.
Interrupted runs continue from the last checkpoint. With a CUDA GPU, which is used where there is one, take more packs a
step and `--workers`.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor
from torch.utils.data import DataLoader

from qr_core.evaluation.systems.bm25 import Bm25
from qr_core.training import overlap, teacher
from qr_core.training.batches import Batch, Batches, Steps
from qr_core.training.data import read as read_texts
from qr_core.training.forward import moved
from qr_core.training.losses import Readouts, losses
from qr_core.training.packs import Packs
from qr_core.training.recipe import Recipe, grown, new_model, tokenizer_from
from qr_core.training.select import select_heads
from qr_core.training.token_teacher import TokenTeacher, device, sample
from qr_core.types import Document


def learning_rate(recipe: Recipe, step: int, done: float) -> float:
    """Linear warm-up by steps, then cosine to a fiftieth by the share of time done."""
    return recipe.learning_rate * min(1.0, (step + 1) / recipe.warmup) * (0.51 + 0.49 * math.cos(math.pi * done))


class Sources:
    """Training and held-out packs of a data folder, with what teacher and BM25 find near."""

    def __init__(
        self, folder: Path, init: Path, cache: Path, evaluation: Sequence[Path] = (), chunks_per_chapter: float = 0.8
    ) -> None:
        self.collection = read_texts(folder, chunks_per_chapter)
        held = overlap.Evaluation(text for other in evaluation for text in overlap.texts_of(other))
        banned = frozenset(i for i, passage in enumerate(self.collection.passages) if held.holds(passage.text))
        unasked = frozenset(i for i, query in enumerate(self.collection.queries) if held.holds(query.text))
        typer.echo(f"{len(banned)} passages and {len(unasked)} queries left out: they stand in evaluation data")
        vectors = teacher.embeddings(init, self.collection, cache)
        near = [teacher.nearest(self.collection, *vectors), teacher.lexical(self.collection)]
        bm25 = Bm25([Document(passage.text, passage.title or None) for passage in self.collection.passages])
        self.packs = Packs(self.collection, near, bm25.array, banned=banned, unasked=unasked)
        self.held_out = Packs(self.collection, near, bm25.array, held=True, banned=banned, unasked=unasked)


class Run:
    """A training run in a folder: model, optimiser, and how far it has come."""

    def __init__(self, init: Path, out: Path, recipe: Recipe, start: Path | None = None) -> None:
        self.out, self.recipe = out, recipe
        self.device = device()
        self.tokenizer = tokenizer_from(init)
        torch.manual_seed(recipe.seed)
        self.teacher = TokenTeacher(init, self.device)
        before = start if start and (start / "checkpoint.pt").exists() else None  # a finished run
        if before:
            start = before / "model"
        self.model = grown(start, recipe) if start else new_model(recipe, self.teacher.words().cpu(), self.tokenizer)
        torch.nn.Module.to(self.model, self.device).train()
        self.readouts = Readouts(recipe.hidden, self.teacher.model.config.hidden_size).to(self.device)
        self.fitted = before is not None  # whether the readouts know the model's states
        if before:
            state = torch.load(before / "checkpoint.pt", map_location=self.device, weights_only=True)
            self.model.load_state_dict(state["mean"] or state["model"])  # in full precision, and not sharpened
            self.readouts.load_state_dict(state["readouts"])
        table = self.model.model.embed_tokens.weight
        table.requires_grad_(recipe.embedding_rate > 0)
        weights = [p for p in self.model.parameters() if p.ndim > 1 and p is not table]
        rest = [p for p in self.model.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [*weights, *self.readouts.parameters()], "weight_decay": recipe.weight_decay, "rate": 1.0},
                {"params": rest, "weight_decay": 0.0, "rate": 1.0},
                {"params": [table], "weight_decay": 0.0, "rate": recipe.embedding_rate},
            ],
            betas=(0.9, 0.98),
            fused=True,
        )
        self.step, self.spent = 0, 0.0  # steps, and seconds of training
        self.mean: dict[str, Tensor] = {}  # of the last checkpoints' weights
        self.averaged = 0  # how many checkpoints that are
        self.saved = -1  # step of the last checkpoint
        out.mkdir(parents=True, exist_ok=True)
        (out / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2) + "\n")
        if (out / "checkpoint.pt").exists():
            state = torch.load(out / "checkpoint.pt", map_location=self.device, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.readouts.load_state_dict(state["readouts"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.spent = state["step"], state["spent"]
            self.mean, self.averaged = state["mean"], state["averaged"]
            self.saved = self.step

    @property
    def done(self) -> float:
        """Share of the run that is over, by time or by steps, whichever is further."""
        return min(1.0, max(self.spent / (self.recipe.minutes * 60), self.step / self.recipe.max_steps))

    def take_step(self, batch: Batch) -> dict[str, Tensor]:
        """One update; returns the losses and the share of queries whose answer comes first."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * learning_rate(self.recipe, self.step, self.done)
        language = self.step % self.recipe.language_every == 0
        with torch.autocast(self.device, dtype=torch.bfloat16):
            found = losses(self.model, self.readouts, moved(batch, self.device), self.recipe, self.teacher, language)
        found.total(self.recipe).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return found.record()

    def fit(self, texts: list[str], batches: Batches) -> None:
        """Start the readouts at what words alone tell of the teacher's states."""
        some = sample(texts, batches.encode)
        goal, _ = self.teacher.states(moved(self.teacher.texts(some), self.device))
        words = torch.tensor([token for text in some for token in text], device=self.device)
        self.readouts.fit(self.model.model.embed_tokens.weight, goal, words)

    @torch.no_grad()
    def held_out_first(self, packs: Packs, batches: Batches, count: int = 40) -> float:
        """Share of held-out queries whose answer gets the most mass, full causal prompt, text as it is."""
        batches = batches.plain()
        rng, found = random.Random(1), []
        for _ in range(count):
            batch = moved(batches.make([packs.draw(rng)], rng, joint=True, titled=True), self.device)
            with torch.autocast(self.device, dtype=torch.bfloat16):
                found.append(losses(self.model, self.readouts, batch, self.recipe, self.teacher).first)
        return float(torch.cat(found).mean())

    def save_checkpoint(self) -> None:
        """Write a checkpoint in place of the last one; a kill in between leaves the last one whole."""
        if self.saved == self.step:
            return
        self.saved = self.step
        if self.done < self.recipe.averaged_from:
            self.mean, self.averaged = {}, 0
        else:
            self.averaged += 1
            for name, weights in self.model.state_dict().items():
                before = self.mean.setdefault(name, torch.zeros_like(weights))
                self.mean[name] = before + (weights - before) / self.averaged
        state: dict[str, Any] = {"step": self.step, "spent": self.spent, "readouts": self.readouts.state_dict()}
        state |= {"mean": self.mean, "averaged": self.averaged}
        state |= {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save(state, self.out / "checkpoint.tmp")
        (self.out / "checkpoint.tmp").replace(self.out / "checkpoint.pt")

    @torch.no_grad()
    def save_model(self) -> None:
        """Write the mean of the last checkpoints and the tokenizer as transformers reads them, in bfloat16."""
        if self.averaged:
            self.model.load_state_dict(self.mean)
        deepest = max(self.recipe.read_layers)  # the states of no other read layer would stay what they are
        self.model.model.layers[deepest].self_attn.q_proj.weight.mul_(self.recipe.sharpness)
        torch.nn.Module.to(self.model, torch.bfloat16)
        self.model.save_pretrained(self.out / "model")
        self.tokenizer.save_pretrained(self.out / "model")


def train(
    data: Path,
    init: Path,
    out: Path,
    recipe: Recipe,
    start: Path | None = None,
    evaluation: Sequence[Path] = (),
    workers: int = 0,
) -> None:
    """Run `recipe` to its end, writing checkpoints, curve and model to `out`.

    `workers` processes make the packs; with none, this one does.
    """
    sources = Sources(data, init, out, evaluation, recipe.chunks_per_chapter)
    run = Run(init, out, recipe, start)
    batches = Batches(run.tokenizer, (run.teacher.start, run.teacher.end), recipe)
    if run.step == 0 and not run.fitted:
        run.fit([sources.collection.passages[place].text for place in sorted(sources.packs.allowed)], batches)
    steps = iter(DataLoader(Steps(sources.packs, batches, recipe, run.step), batch_size=None, num_workers=workers))
    recent: list[dict[str, Tensor]] = []
    clock = time.monotonic()
    while run.done < 1.0:
        recent.append(run.take_step(next(steps)))
        run.spent += time.monotonic() - clock
        clock = time.monotonic()
        if run.step % recipe.log_every:
            continue
        record: dict[str, float] = {"step": run.step, "minutes": round(run.spent / 60, 2)}
        for name in sorted({name for entry in recent for name in entry}):
            record[name] = round(float(torch.stack([entry[name] for entry in recent if name in entry]).mean()), 4)
        recent.clear()
        if run.step % recipe.checkpoint_every == 0:
            record["held_out_first"] = run.held_out_first(sources.held_out, batches)
            run.save_checkpoint()
        with (out / "curve.jsonl").open("a") as curve:
            curve.write(json.dumps(record) + "\n")
        typer.echo(json.dumps(record))
        clock = time.monotonic()
    run.save_checkpoint()
    run.save_model()
    select_heads(out / "model", sources.held_out, recipe.select_packs, recipe.heads)


def main(
    data: Annotated[Path, typer.Option(help="Folder with the training files.", exists=True, file_okay=False)],
    init: Annotated[Path, typer.Option(help="Folder with all-MiniLM-L6-v2.", exists=True, file_okay=False)],
    out: Annotated[Path, typer.Option(help="Folder for the teacher's vectors, checkpoints, curve and model.")],
    start: Annotated[Path | None, typer.Option(help="Folder of a model (it may grow) or run to go on from.")] = None,
    minutes: Annotated[float, typer.Option(help="Training time, evaluation left out.")] = Recipe.minutes,
    seed: Annotated[int, typer.Option(help="Seed of weights, packs and order.")] = 0,
    evaluation: Annotated[
        list[Path] | None, typer.Option(help="Folders of evaluation data, whose text is left out.", exists=True)
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes that make packs; with a GPU, one for each core.", min=0)] = 0,
    config: Annotated[Path | None, typer.Option(help="JSON file with other settings of the recipe.")] = None,
) -> None:
    """Train the embedded decoder from data files and all-MiniLM-L6-v2."""
    other = {} if config is None else json.loads(config.read_text(encoding="utf-8"))
    settings: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in other.items()
    }
    train(data, init, out, replace(Recipe(minutes=minutes, seed=seed), **settings), start, evaluation or (), workers)


if __name__ == "__main__":
    typer.run(main)
