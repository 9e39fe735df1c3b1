"""Benchmark: this package's scoring beside one plain forward pass and the published algorithm, as `qrhead bench`.

All sides run on one model with random weights, one prompt, one dtype and one attention backend. Times are taken in
one process, the sides in turn; memory is the peak of a fresh process that runs one side once.

Knows nothing of text: prompts are random token ids.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from qr_core.cli_common import Format, FormatOption, err, out
from qr_core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

SIDES = ("plain", "published", "ours")
QUERY_TOKENS = 48
NULL_TOKENS = 28
DOCUMENT_TOKENS = 128
HEADS_READ = 16


@dataclass(frozen=True)
class Shape:
    """What is measured: a Llama-shaped decoder without language-model head, and a prompt length."""

    layers: int
    deepest: int
    tokens: int
    hidden: int
    dtype: str
    device: str


def build(shape: Shape) -> PreTrainedModel:
    """A model with random weights, sharp enough that attention is far from uniform."""
    import torch
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=shape.hidden,
        intermediate_size=shape.hidden * 11 // 4,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.hidden // 64,
        num_key_value_heads=max(1, shape.hidden // 128),
        max_position_embeddings=max(shape.tokens, 8192),
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        initializer_range=0.05,
    )
    model: PreTrainedModel = LlamaModel(config).eval()
    torch.nn.Module.to(model, device=shape.device, dtype=getattr(torch, shape.dtype))
    return model


def heads_of(shape: Shape) -> dict[int, list[int]]:
    """`HEADS_READ` heads spread over the layers up to the deepest, which has one for certain."""
    heads = shape.hidden // 64
    chosen: dict[int, list[int]] = {shape.deepest: [0]}
    for i in range(1, HEADS_READ):
        layer, head = shape.deepest - i % (shape.deepest // 2 + 1), (i * 5) % heads
        if head not in chosen.setdefault(layer, []):
            chosen[layer].append(head)
    return {layer: sorted(chosen[layer]) for layer in sorted(chosen)}


def sides(shape: Shape, model: PreTrainedModel) -> dict[str, Callable[[], Tensor | None]]:
    """The three computations; those that score return one score per document."""
    import torch
    from transformers import DynamicCache

    from qr_core import scoring
    from qr_core.capture import Capture, attention
    from qr_core.prefill import prefill, probe

    random = torch.Generator().manual_seed(1)
    ids = torch.randint(10, 4000, (1, shape.tokens), generator=random).to(shape.device)
    prefix, query = ids[:, :-QUERY_TOKENS], ids[:, -QUERY_TOKENS:]
    null = query[:, :NULL_TOKENS]
    spans = [(start, start + DOCUMENT_TOKENS) for start in range(0, prefix.shape[1] - DOCUMENT_TOKENS, DOCUMENT_TOKENS)]
    heads = heads_of(shape)

    def plain() -> None:
        model(input_ids=ids, use_cache=False)

    def published() -> Tensor:
        cache = model(input_ids=prefix, past_key_values=DynamicCache(), use_cache=True).past_key_values
        masses = []
        for suffix in (query, null):
            with attention(model, "eager"):
                weights = model(
                    input_ids=suffix, past_key_values=cache, use_cache=True, output_attentions=True
                ).attentions
            cache.crop(-suffix.shape[1])
            every = torch.stack([layer[0].mean(dim=1)[:, : prefix.shape[1]] for layer in weights])
            masses.append(torch.cat([every[layer, chosen] for layer, chosen in heads.items()]))
        summed = scoring.calibrate(masses[0], masses[1]).sum(dim=0)
        return scoring.score_documents(summed, spans)

    def ours() -> Tensor:
        read = prefill(model, prefix, shape.deepest)
        masses = []
        for suffix in (query, null):
            rows = suffix.shape[1]
            capture = Capture(
                {layer: torch.tensor(chosen) for layer, chosen in heads.items()},
                torch.full((1, rows), 1 / rows),
                shape.deepest,
            )
            found = probe(model, read, suffix, capture)
            masses.append(torch.cat([found[layer][0] for layer in heads]))
        summed = scoring.calibrate(masses[0], masses[1]).sum(dim=0)
        return scoring.score_documents(summed, spans)

    return {"plain": plain, "published": published, "ours": ours}


def time_sides(shape: Shape, repeats: int) -> tuple[dict[str, list[float]], float]:
    """Seconds of each run of each side, taken in turn after a warm-up; and the largest difference between scores."""
    import torch

    model = build(shape)
    with torch.inference_mode():
        computed = sides(shape, model)
        last = {name: run() for name, run in computed.items()}
        seconds: dict[str, list[float]] = {name: [] for name in computed}
        for _ in range(repeats):
            for name, run in computed.items():
                _wait(shape.device)
                clock = time.perf_counter()
                run()
                _wait(shape.device)
                seconds[name].append(time.perf_counter() - clock)
    ours, published = last["ours"], last["published"]
    difference = 0.0 if ours is None or published is None else float((ours - published).abs().max())
    return seconds, difference


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def _peak(shape: Shape, side: str, answer: Any) -> None:
    """In a fresh process: run one side once and send the growth of peak memory over the loaded model, in bytes.

    On CUDA the whole side is measured by torch's allocator, the model excluded.
    """
    import torch

    model = build(shape)
    if shape.deepest + 1 < shape.layers and side == "ours":
        model.layers = model.layers[: shape.deepest + 1]  # type: ignore[index, assignment, unused-ignore]
        model.config.num_hidden_layers = shape.deepest + 1
    with torch.inference_mode():
        run = sides(shape, model)[side]
        if shape.device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats(shape.device)
            before = torch.cuda.memory_allocated(shape.device)
            run()
            answer.send(torch.cuda.max_memory_allocated(shape.device) - before)
            return
        before = _resident()
        run()
        answer.send(_peak_resident() - before)


def _resident() -> int:
    """Resident memory of this process now, in bytes; the peak is counted anew from here where the system allows it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    except OSError:
        return _peak_resident()


def _peak_resident() -> int:
    """Peak resident memory of this process, in bytes."""
    try:
        return _status("VmHWM")
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def peak_memory(shape: Shape) -> dict[str, int]:
    """Peak memory of each side above the loaded model, in bytes, each in a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    found = {}
    for side in SIDES:
        receive, send = spawn.Pipe(duplex=False)
        child = spawn.Process(target=_peak, args=(shape, side, send))
        child.start()
        send.close()
        try:
            found[side] = int(receive.recv())
        except EOFError as error:
            raise InputError(
                f"the process that measured the memory of {side!r} ended early: too little memory?"
            ) from error
        finally:
            child.join()
    return found


def bench(
    layers: Annotated[int, typer.Option(help="Layers of the model.", min=2)] = 16,
    deepest: Annotated[int, typer.Option(help="Deepest layer with a selected head, from 0.", min=0)] = 9,
    tokens: Annotated[int, typer.Option(help="Prompt length.", min=512)] = 4096,
    hidden: Annotated[int, typer.Option(help="Hidden size, a multiple of 128.", min=128)] = 1024,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "bfloat16",
    device: Annotated[str | None, typer.Option(help="Default: the best there is.")] = None,
    repeats: Annotated[int, typer.Option(help="Timed rounds; the median counts.", min=1)] = 5,
    format_: FormatOption = Format.table,
) -> None:
    """Time scoring beside a plain forward pass and the published algorithm, with random weights.

    plain: one forward pass of the whole prompt, no language-model head. published: documents through all layers,
    then query and N/A with the attention of all heads. ours: documents up to the deepest selected layer, then query
    and N/A with the selected heads.
    """
    import torch

    from qr_core.models import pick_device

    if deepest >= layers:
        raise InputError(f"deepest layer {deepest} does not exist: the model has layers 0-{layers - 1}")
    if hidden % 128:
        raise InputError(f"hidden size {hidden} is not a multiple of 128")
    if dtype not in ("float32", "bfloat16", "float16"):
        raise InputError(f"dtype {dtype!r}: use float32, bfloat16 or float16")
    shape = Shape(layers, deepest, tokens, hidden, dtype, pick_device(device))
    err.print("timing ...")
    seconds, difference = time_sides(shape, repeats)
    err.print("measuring memory ...")
    memory = peak_memory(shape)
    medians = {side: statistics.median(seconds[side]) for side in SIDES}
    report = {
        "shape": shape.__dict__,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "repeats": repeats,
        "seconds": seconds,
        "median_seconds": medians,
        "tokens_per_second": {side: tokens / medians[side] for side in SIDES},
        "peak_bytes_above_model": memory,
        "ours_over_plain": medians["ours"] / medians["plain"],
        "published_over_ours": medians["published"] / medians["ours"],
        "largest_score_difference": difference,
    }
    if format_ is Format.json:
        typer.echo(json.dumps(report))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("side", "median s", "min s", "max s", "tokens/s", "of plain", "peak MiB above model"):
        table.add_column(column, justify="left" if column == "side" else "right")
    for side in SIDES:
        took = seconds[side]
        table.add_row(
            side,
            *(f"{value:.3f}" for value in (medians[side], min(took), max(took))),
            f"{tokens / medians[side]:.0f}",
            f"{medians[side] / medians['plain']:.2f}",
            f"{memory[side] / 2**20:.0f}",
        )
    out.print(
        f"{layers} layers, heads up to layer {deepest}, {tokens} tokens, hidden {hidden}, {dtype}, {shape.device}, "
        f"{torch.get_num_threads()} threads, median of {repeats}"
    )
    out.print(table)
    out.print(
        f"ours takes {report['ours_over_plain']:.2f} of a plain forward pass and is "
        f"{report['published_over_ours']:.2f} times as fast as the published algorithm; "
        f"scores differ by at most {difference:.1e}"
    )
