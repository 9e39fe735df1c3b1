"""Train the embedded model: a small Llama whose heads look at the passages that answer a question.

    python -m qr_core.mini.train --data DIR --init DIR --out DIR [--minutes 40]

`--data` holds the files `qr_core.mini.data` names. `--init` is a folder with all-MiniLM-L6-v2 (Apache-2.0), whose
tokenizer and word embeddings the model starts from; `--out` receives checkpoints, the curve (`curve.jsonl`) and the
model. Interrupted runs continue from the last checkpoint.

The loss is the cross-entropy over passages of the attention mass (mean over the heads of the read layers and the
query's tokens), plus a light language-model loss. Prefill, probe and capture are the scorer's own, with gradients.
"""

from __future__ import annotations

import json
import math
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from qr_core.capture import Capture
from qr_core.mini.data import Pack, Packs, Passage
from qr_core.mini.recipe import Recipe, new_model, tokenizer_from
from qr_core.mini.select import select_heads
from qr_core.prefill import Prefix, prefill, probe
from qr_core.templates import INTRODUCTION, LATE_INSTRUCTION, NULL_QUERY, QUERY_LABEL


@dataclass(frozen=True)
class Batch:
    """A pack as tensors. P passages (and the introduction before them), Q questions, the last of them `N/A`."""

    rows: Tensor  # (1 + P, longest) token ids of introduction and passages, padded with 0
    lengths: Tensor  # (1 + P,)
    suffixes: Tensor  # (Q, longest) token ids
    row_weights: Tensor  # (Q, longest) 1 / tokens of the suffix
    targets: Tensor  # (Q, P) each row sums to 1


class Batches:
    """Turns packs into tensors with the strings of the `plain` template."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, passage_tokens: int) -> None:
        self.tokenizer = tokenizer
        self.passage_tokens = passage_tokens
        self.introduction = self.encode(INTRODUCTION)
        self.late = self.encode(f"{LATE_INSTRUCTION}\n\n{QUERY_LABEL}")

    def encode(self, text: str) -> list[int]:
        """Token ids of a piece of a prompt."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def _passage(self, number: int, passage: Passage, titled: bool) -> list[int]:
        title = f"{passage.title}\n" if titled and passage.title else ""
        return self.encode(f"[{number}] {title}{passage.text[:4000]}")[: self.passage_tokens]

    def make(self, pack: Pack, rng: random.Random) -> Batch:
        """Titles are shown for two packs in three; the null question is aimed at all passages alike."""
        titled = rng.random() < 0.67
        rows = [self.introduction] + [self._passage(i + 1, p, titled) for i, p in enumerate(pack.passages)]
        suffixes = [self.late + self.encode(q)[:64] for q in [q for q, _ in pack.questions] + [NULL_QUERY]]
        targets = torch.zeros(len(suffixes), len(pack.passages))
        for row, (_, golds) in enumerate(pack.questions):
            targets[row, list(golds)] = 1 / len(golds)
        targets[-1] = 1 / len(pack.passages)
        lengths = torch.tensor([len(s) for s in suffixes])
        ids = _padded(suffixes)
        weights = (torch.arange(ids.shape[1]) < lengths[:, None]).float() / lengths[:, None]
        return Batch(_padded(rows), torch.tensor([len(r) for r in rows]), ids, weights, targets)


def _padded(rows: list[list[int]]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(r) for r in rows], batch_first=True)


def _positions(lengths: Tensor, spread: int, rng: random.Random) -> tuple[Tensor, int]:
    """Start position of each row, shape (rows,), with random gaps that add up to `spread`; and the position after."""
    gaps = torch.tensor(sorted(rng.randint(0, spread) for _ in lengths))
    starts = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)[:-1]]) + gaps
    return starts, int(starts[-1] + lengths[-1])


def losses(
    model: LlamaForCausalLM, batch: Batch, recipe: Recipe, rng: random.Random, language: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Retrieval loss, language-model loss (0 when not asked for), and the share of questions answered first.

    Shapes: masses (Q, heads, keys) become (Q, P) by summing each passage's keys and averaging the heads.
    """
    device = model.device
    deepest = max(recipe.read_layers)
    valid = torch.arange(batch.rows.shape[1]) < batch.lengths[:, None]  # (1 + P, longest)
    owner = (torch.arange(len(batch.lengths))[:, None] - 1).expand_as(valid)[valid].to(device)  # (T,), -1 introduction
    joint = rng.random() < recipe.joint_share
    spread = 0
    if not joint and rng.random() < recipe.spread_share:
        spread = rng.randint(0, recipe.max_positions // 2)
    starts, end = _positions(batch.lengths, spread, rng)
    positions = starts[:, None] + torch.arange(batch.rows.shape[1])
    ids = batch.rows
    if joint:
        ids, positions = ids[valid][None], positions[valid][None]
    ids, positions = ids.to(device), positions.to(device)

    language_loss = torch.zeros((), device=device)
    if language:
        out = model.model(input_ids=ids, position_ids=positions, use_cache=True)
        prefix = Prefix(
            tuple(layer.keys for layer in out.past_key_values.layers),
            tuple(layer.values for layer in out.past_key_values.layers),
        )
        ahead = ids[:, 1:]
        known = (owner[1:] == owner[:-1])[None] if joint else valid[:, 1:].to(device)
        where = known.nonzero()
        where = where[torch.randperm(len(where), device=device)[: recipe.language_tokens]]
        logits = model.lm_head(out.last_hidden_state[where[:, 0], where[:, 1]])
        language_loss = cross_entropy(logits.float(), ahead[where[:, 0], where[:, 1]])
    else:
        prefix = prefill(model.model, ids, deepest, positions)
    if not joint:  # one row of T valid keys, as in a joint prompt
        mask = valid.to(device)
        prefix = Prefix(
            tuple(k.transpose(0, 1)[:, mask][None] for k in prefix.keys),
            tuple(v.transpose(0, 1)[:, mask][None] for v in prefix.values),
        )
    suffixes = batch.suffixes.to(device)
    capture = Capture(
        heads={layer: torch.arange(recipe.heads) for layer in recipe.read_layers},
        row_weights=batch.row_weights.to(device),
        stop_after=deepest,
    )
    places = end + torch.arange(suffixes.shape[1], device=device)
    masses = probe(model.model, prefix, suffixes, capture, places.expand_as(suffixes))
    per_key = torch.cat([masses[layer] for layer in recipe.read_layers], dim=1).mean(dim=1)  # (Q, T)
    share = torch.zeros(len(suffixes), batch.targets.shape[1] + 1, device=device)
    share = share.index_add(1, owner + 1, per_key)[:, 1:]  # (Q, P)
    log_share = torch.log(share + 1e-6) - torch.log(share.sum(1, keepdim=True) + 1e-6)
    targets = batch.targets.to(device)
    per_question = -(targets * log_share).sum(1)
    retrieval = per_question[:-1].mean() + recipe.null_weight * per_question[-1]
    first = targets[:-1].gather(1, log_share[:-1].argmax(1, keepdim=True)).gt(0).float().mean()
    return retrieval, language_loss, first.detach()


def learning_rate(recipe: Recipe, step: int, done: float) -> float:
    """Linear warm-up by steps, then cosine to a twentieth by the share of time done."""
    return recipe.learning_rate * min(1.0, (step + 1) / recipe.warmup) * (0.525 + 0.475 * math.cos(math.pi * done))


@torch.no_grad()
def held_out_accuracy(
    model: LlamaForCausalLM, batches: Batches, packs: Packs, recipe: Recipe, count: int = 60
) -> float:
    """Share of held-out questions whose answering passage gets the most mass, full causal prompt."""
    rng = random.Random(1)
    joint = Recipe(**{**asdict(recipe), "joint_share": 1.0})
    found = [losses(model, batches.make(packs.draw(rng), rng), joint, rng, False)[2] for _ in range(count)]
    return float(torch.stack(found).mean())


class Run:
    """A training run in a folder: model, optimiser, and how far it has come."""

    def __init__(self, init: Path, out: Path, recipe: Recipe) -> None:
        self.out, self.recipe = out, recipe
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer = tokenizer_from(init)
        self.model = new_model(recipe, init, self.tokenizer)
        torch.nn.Module.to(self.model, self.device).train()
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        rest = [p for p in self.model.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}],
            betas=(0.9, 0.98),
            fused=True,
        )
        self.step, self.spent = 0, 0.0  # steps, and seconds of training
        out.mkdir(parents=True, exist_ok=True)
        (out / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2) + "\n")
        if (out / "checkpoint.pt").exists():
            state = torch.load(out / "checkpoint.pt", weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.spent = state["step"], state["spent"]

    @property
    def done(self) -> float:
        """Share of the run that is over, by time or by steps, whichever is further."""
        return min(1.0, max(self.spent / (self.recipe.minutes * 60), self.step / self.recipe.max_steps))

    def take_step(self, batch: Batch, rng: random.Random) -> tuple[float, float, float]:
        """One update; returns the retrieval loss, the language loss and the share of questions answered first."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, self.step, self.done)
        language = self.step % self.recipe.language_every == 0
        with torch.autocast(self.device, dtype=torch.bfloat16):
            retrieval, language_loss, first = losses(self.model, batch, self.recipe, rng, language)
        (retrieval + self.recipe.language_weight * language_loss).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return retrieval.item(), language_loss.item(), first.item()

    def save_checkpoint(self) -> None:
        """Write a checkpoint in place of the last one; a kill in between leaves the last one whole."""
        state: dict[str, Any] = {"step": self.step, "spent": self.spent}
        state |= {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save(state, self.out / "checkpoint.tmp")
        (self.out / "checkpoint.tmp").replace(self.out / "checkpoint.pt")

    def save_model(self) -> None:
        """Write model and tokenizer as transformers reads them, in bfloat16."""
        torch.nn.Module.to(self.model, torch.bfloat16)
        self.model.save_pretrained(self.out / "model")
        self.tokenizer.save_pretrained(self.out / "model")


def train(data: Path, init: Path, out: Path, recipe: Recipe) -> None:
    """Run `recipe` to its end, writing checkpoints, curve and model to `out`."""
    run = Run(init, out, recipe)
    rng = random.Random(recipe.seed * 1_000_003 + run.step)
    batches = Batches(run.tokenizer, recipe.passage_tokens)
    packs, held_out = Packs(data), Packs(data, held_out=True)
    recent: list[tuple[float, float, float]] = []
    clock = time.monotonic()
    while run.done < 1.0:
        recent.append(run.take_step(batches.make(packs.draw(rng), rng), rng))
        run.spent += time.monotonic() - clock
        clock = time.monotonic()
        if run.step % recipe.log_every:
            continue
        retrieval, language, first = (sum(column) for column in zip(*recent, strict=True))
        record = {
            "step": run.step,
            "minutes": round(run.spent / 60, 2),
            "retrieval": retrieval / len(recent),
            "language": language / max(1, sum(loss > 0 for _, loss, _ in recent)),
            "first": first / len(recent),
        }
        recent.clear()
        if run.step % recipe.checkpoint_every == 0:
            with torch.autocast(run.device, dtype=torch.bfloat16):
                record["held_out_first"] = held_out_accuracy(run.model.eval(), batches, held_out, recipe)
            run.model.train()
            run.save_checkpoint()
        with (out / "curve.jsonl").open("a") as curve:
            curve.write(json.dumps(record) + "\n")
        typer.echo(json.dumps(record))
        clock = time.monotonic()
    run.save_checkpoint()
    run.save_model()
    select_heads(out / "model", held_out)


def main(
    data: Annotated[Path, typer.Option(help="Folder with the training files.", exists=True, file_okay=False)],
    init: Annotated[Path, typer.Option(help="Folder with all-MiniLM-L6-v2.", exists=True, file_okay=False)],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, curve and model.")],
    minutes: Annotated[float, typer.Option(help="Training time, evaluation left out.")] = Recipe.minutes,
    seed: Annotated[int, typer.Option(help="Seed of weights, packs and order.")] = 0,
) -> None:
    """Train the embedded model from data files and all-MiniLM-L6-v2's word embeddings."""
    train(data, init, out, Recipe(minutes=minutes, seed=seed))


if __name__ == "__main__":
    typer.run(main)
