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
from typing import Annotated

import torch
import typer
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from qr_core.capture import Capture
from qr_core.mini.data import Pack, Packs, Passage
from qr_core.prefill import Prefix, prefill, probe
from qr_core.prompt import INTRODUCTION, LATE_INSTRUCTION, NULL_QUERY, QUERY_LABEL


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run but its data; written beside the model."""

    layers: int = 3
    hidden: int = 384
    heads: int = 6
    intermediate: int = 1024
    rope_theta: float = 1e6
    max_positions: int = 32768
    read_layers: tuple[int, ...] = (1, 2)
    learning_rate: float = 7e-4
    weight_decay: float = 0.01
    warmup: int = 200
    minutes: float = 40.0
    seed: int = 0
    joint_share: float = 0.15  # steps with the full causal prompt; in the others passages attend to themselves only
    spread_share: float = 0.3  # of those, steps with gaps between passages, as in long prompts
    passage_tokens: int = 260
    null_weight: float = 0.1
    language_every: int = 4
    language_weight: float = 0.3
    language_tokens: int = 256


def tokenizer_from(init: Path) -> PreTrainedTokenizerFast:
    """The WordPiece tokenizer of the initial folder, without the markers that an encoder adds."""
    spec = json.loads((init / "tokenizer.json").read_text(encoding="utf-8"))
    spec.update(post_processor=None, truncation=None, padding=None)
    from tokenizers import Tokenizer

    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(spec)),
        unk_token="[UNK]",
        pad_token="[PAD]",
        eos_token="[SEP]",
        clean_up_tokenization_spaces=False,
        model_max_length=Recipe.max_positions,
    )


def new_model(recipe: Recipe, init: Path, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama that starts from MiniLM's word embeddings, with each key projection equal to its query projection.

    Equal projections make every head look at like words from the first step; without that nothing emerges.
    """
    torch.manual_seed(recipe.seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=recipe.hidden,
            intermediate_size=recipe.intermediate,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.heads,
            max_position_embeddings=recipe.max_positions,
            rope_parameters={"rope_type": "default", "rope_theta": recipe.rope_theta},
            rms_norm_eps=1e-6,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    words = load_file(init / "model.safetensors")["embeddings.word_embeddings.weight"].float()
    words = words - words.mean(dim=0)
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(words * (0.2 / words.std()))
        model.model.norm.weight.fill_(0.25)
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight.normal_(std=0.05)
            layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)
            layer.self_attn.o_proj.weight.mul_(0.4)
            layer.mlp.down_proj.weight.mul_(0.4)
    return model


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
    per_key = torch.cat([masses[layer] for layer in recipe.read_layers], dim=1).mean(dim=1)[:, : len(owner)]  # (Q, T)
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


def train(data: Path, init: Path, out: Path, recipe: Recipe) -> None:
    """Run `recipe` to its end, writing checkpoints, curve and model to `out`."""
    out.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = tokenizer_from(init)
    model = new_model(recipe, init, tokenizer)
    torch.nn.Module.to(model, device).train()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}],
        betas=(0.9, 0.98),
        fused=True,
    )
    step, spent = 0, 0.0
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, spent = state["step"], state["spent"]
    rng = random.Random(recipe.seed * 1_000_003 + step)
    batches = Batches(tokenizer, recipe.passage_tokens)
    packs, held_out = Packs(data), Packs(data, held_out=True)
    (out / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2) + "\n")
    recent: list[tuple[float, float, float]] = []
    clock = time.monotonic()
    while spent < recipe.minutes * 60:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step, min(1.0, spent / (recipe.minutes * 60)))
        language = step % recipe.language_every == 0
        with torch.autocast(device, dtype=torch.bfloat16):
            retrieval, language_loss, first = losses(model, batches.make(packs.draw(rng), rng), recipe, rng, language)
        (retrieval + recipe.language_weight * language_loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        recent.append((float(retrieval), float(language_loss), float(first)))
        step += 1
        spent += time.monotonic() - clock
        clock = time.monotonic()
        if step % 100 == 0:
            record = {
                "step": step,
                "minutes": round(spent / 60, 2),
                "retrieval": sum(r for r, _, _ in recent) / len(recent),
                "language": sum(w for _, w, _ in recent) / max(1, sum(w > 0 for _, w, _ in recent)),
                "first": sum(f for _, _, f in recent) / len(recent),
            }
            recent.clear()
            if step % 500 == 0:
                with torch.autocast(device, dtype=torch.bfloat16):
                    record["held_out_first"] = held_out_accuracy(model.eval(), batches, held_out, recipe)
                model.train()
                state = {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": step,
                    "spent": spent,
                }
                torch.save(state, checkpoint.with_suffix(".tmp"))
                checkpoint.with_suffix(".tmp").replace(checkpoint)
            with (out / "curve.jsonl").open("a") as curve:
                curve.write(json.dumps(record) + "\n")
            typer.echo(json.dumps(record))
            clock = time.monotonic()
    torch.nn.Module.to(model, torch.bfloat16)
    model.save_pretrained(out / "model")
    tokenizer.save_pretrained(out / "model")


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
