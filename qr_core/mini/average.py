"""Average the weights of runs that went on from the same model, and choose the average's heads.

    python -m qr_core.mini.average --data DIR --init DIR --out DIR RUN RUN ...

Each RUN is an `--out` of `qr_core.mini.train`. Knows nothing of how the runs differ.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from transformers import AutoTokenizer, LlamaForCausalLM

from qr_core.mini.recipe import Recipe
from qr_core.mini.select import select_heads
from qr_core.mini.train import Sources


@torch.no_grad()
def average(runs: Sequence[Path], out: Path, sharpness: float = 1.0) -> None:
    """Write the mean of the runs' last checkpoints to `out/model`, in bfloat16, with the first run's tokenizer.

    Parameters
    ----------
    runs : sequence of Path
    out : Path
    sharpness : float
        Factor on the attention logits of the read layers. Below 1 mends heads that are too sure of themselves, as
        they become when they see the same questions again and again.
    """
    model = LlamaForCausalLM.from_pretrained(runs[0] / "model", dtype=torch.float32)
    states = [torch.load(run / "checkpoint.pt", weights_only=True)["model"] for run in runs]
    model.load_state_dict({name: torch.stack([state[name] for state in states]).mean(dim=0) for name in states[0]})
    for layer in json.loads((runs[0] / "recipe.json").read_text())["read_layers"]:
        model.model.layers[layer].self_attn.q_proj.weight.mul_(sharpness)
    torch.nn.Module.to(model, torch.bfloat16)
    model.save_pretrained(out / "model")
    AutoTokenizer.from_pretrained(runs[0] / "model").save_pretrained(out / "model")


def main(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs.", exists=True, file_okay=False)],
    data: Annotated[Path, typer.Option(help="Folder with the training files.", exists=True, file_okay=False)],
    init: Annotated[Path, typer.Option(help="Folder with all-MiniLM-L6-v2.", exists=True, file_okay=False)],
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    sharpness: Annotated[float, typer.Option(help="Factor on the read layers' attention logits.")] = Recipe.sharpness,
) -> None:
    """Average finished runs, and choose heads on held-out packs."""
    average(runs, out, sharpness)
    select_heads(out / "model", Sources(data, init, out).held_out, Recipe.select_packs)


if __name__ == "__main__":
    typer.run(main)
