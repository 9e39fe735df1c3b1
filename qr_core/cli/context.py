"""Command line for long context: `qrhead prune` and `qrhead ask`.

Knows nothing of how parts are chosen or answers made.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from qr_core.cli.common import (
    Device,
    DocumentCacheOption,
    Dtype,
    Format,
    FormatOption,
    Heads,
    LayoutOption,
    Mismatch,
    Model,
    RemoteCode,
    Revision,
    TemplateOption,
    Window,
    err,
    make_scorer,
    out,
    print_json,
    reading,
)
from qr_core.display.terminal import plain, safe_lines
from qr_core.errors import InputError


class UnitChoice(str, Enum):
    """What is kept or left out as a whole."""

    document = "document"
    paragraph = "paragraph"
    sentence = "sentence"
    turn = "turn"


class TextChoice(str, Enum):
    """What the text is made of."""

    text = "text"
    markdown = "markdown"
    chat = "chat"


Query = Annotated[str, typer.Option(help="What to look for.")]
File = Annotated[str, typer.Option("--file", help="A text file (also .gz), or - for standard input.")]
UnitOption = Annotated[UnitChoice, typer.Option(help="What is kept or left out as a whole; document: a passage.")]
TextOption = Annotated[
    TextChoice | None,
    typer.Option("--input-format", help="Default: markdown for .md files, else text. chat: lines like 'Anna: ...'."),
]
Headings = Annotated[bool, typer.Option("--headings", help="Keep the Markdown headings of kept parts.")]
Mark = Annotated[str | None, typer.Option(help="Mark where something was left out, for example '[...]'.")]


def prune(
    query: Query,
    file: File,
    max_tokens: Annotated[int | None, typer.Option(help="Most tokens to keep.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Most parts to keep.")] = None,
    min_relevance: Annotated[float | None, typer.Option(help="Least share, 0 to 1, of the attention on all.")] = None,
    min_keep: Annotated[int, typer.Option(help="Keep so many of the best whatever their relevance.")] = 0,
    unit: UnitOption = UnitChoice.sentence,
    input_format: TextOption = None,
    headings: Headings = False,
    ellipsis: Mark = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Count tokens as this model's tokenizer does. Default: the scorer's.")
    ] = None,
    model: Model = None,
    heads: Heads = None,
    template: TemplateOption = None,
    layout: LayoutOption = None,
    document_cache: DocumentCacheOption = None,
    max_prompt_tokens: Window = None,
    revision: Revision = None,
    device: Device = None,
    dtype: Dtype = "auto",
    allow_model_mismatch: Mismatch = False,
    trust_remote_code: RemoteCode = False,
    format_: FormatOption = Format.table,
) -> None:
    """Print the parts of a text that matter for a query, in their order."""
    from qr_core.files.inputs import read_source
    from qr_core.model.loading import ModelSource, load_tokenizer
    from qr_core.text.pruning import Budget

    Budget(max_tokens, top_k, min_relevance, min_keep)  # complain before anything is read
    text = read_source(file)
    counted_with = None if tokenizer is None else load_tokenizer(ModelSource(tokenizer))
    scorer = make_scorer(
        model,
        heads,
        template,
        device,
        dtype,
        layout=layout.value if layout else None,
        document_cache=document_cache,
        revision=revision,
        max_prompt_tokens=max_prompt_tokens,
        allow_model_mismatch=allow_model_mismatch,
        trust_remote_code=trust_remote_code,
    )
    with reading() as progress:
        pruned = scorer.prune(
            query,
            text,
            max_tokens=max_tokens,
            top_k=top_k,
            min_relevance=min_relevance,
            min_keep=min_keep,
            unit=unit.value,
            text_format=_text_format(file, unit, input_format),
            headings=headings,
            ellipsis=ellipsis,
            tokenizer=counted_with,
            progress=progress,
        )
    if format_ is Format.json:
        print_json(pruned.to_dict())
        return
    windows = f", read in {pruned.windows} windows" if pruned.windows > 1 else ""
    about = f"kept {pruned.kept_tokens} of {pruned.total_tokens} tokens in {len(pruned.spans)} parts{windows}"
    err.print(plain(f"{about}, model {pruned.model}, heads {pruned.heads}"), soft_wrap=True)
    typer.echo(safe_lines(pruned.text) if out.is_terminal else pruned.text)


def ask(
    query: Annotated[str, typer.Option(help="The question.")],
    file: File,
    max_tokens: Annotated[int, typer.Option(help="Most tokens of the text that the generator reads.", min=1)] = 2048,
    max_new_tokens: Annotated[int, typer.Option(help="Most tokens of the answer.", min=1)] = 256,
    generator: Annotated[
        str | None, typer.Option(help="Hub id or folder of a model, or an OpenAI-compatible address. Default: --model.")
    ] = None,
    generator_model: Annotated[str | None, typer.Option(help="Which model an address should use.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for an address.", min=0.1)] = 120.0,
    unit: UnitOption = UnitChoice.sentence,
    input_format: TextOption = None,
    headings: Headings = False,
    ellipsis: Mark = None,
    model: Model = None,
    heads: Heads = None,
    template: TemplateOption = None,
    layout: LayoutOption = None,
    document_cache: DocumentCacheOption = None,
    max_prompt_tokens: Window = None,
    revision: Revision = None,
    device: Device = None,
    dtype: Dtype = "auto",
    allow_model_mismatch: Mismatch = False,
    trust_remote_code: RemoteCode = False,
    format_: FormatOption = Format.table,
) -> None:
    """Select the parts of a text that matter for a question, and let a model answer from them.

    The key of an address is taken from the environment's OPENAI_API_KEY. Without --generator the scoring model
    answers itself; the embedded model is too small to answer sensibly.
    """
    from qr_core import generation
    from qr_core.files.inputs import read_source

    text = read_source(file)
    scorer = make_scorer(
        model,
        heads,
        template,
        device,
        dtype,
        layout=layout.value if layout else None,
        document_cache=document_cache,
        revision=revision,
        max_prompt_tokens=max_prompt_tokens,
        allow_model_mismatch=allow_model_mismatch,
        trust_remote_code=trust_remote_code,
    )
    answering: generation.Generator
    if generator is None:
        if generator_model is not None:
            raise InputError("--generator-model goes with an address: name it with --generator")
        answering = generation.LocalGenerator(scorer.source, scorer.model_name)
        if model is None:
            err.print("the embedded model answers: it is too small to do so sensibly; name another with --generator")
    else:
        if generator_model is not None and not generator.startswith(("http://", "https://")):
            raise InputError("--generator-model goes with an address; --generator names the model itself")
        more: dict[str, Any] = {"device": device, "dtype": dtype, "trust_remote_code": trust_remote_code}
        answering = generation.generator_of(generator, generator_model, timeout, **more)
    with reading() as progress:
        answer = generation.ask(
            scorer,
            query,
            text,
            answering,
            max_tokens=max_tokens,
            max_new_tokens=max_new_tokens,
            unit=unit.value,
            text_format=_text_format(file, unit, input_format),
            headings=headings,
            ellipsis=ellipsis,
            progress=progress,
        )
    if format_ is Format.json:
        print_json(answer.to_dict())
        return
    kept = answer.pruned
    about = (
        f"read {kept.kept_tokens} of {kept.total_tokens} tokens, selected by {kept.model}; {answer.generator} answers:"
    )
    err.print(plain(about), soft_wrap=True)
    typer.echo(safe_lines(answer.text) if out.is_terminal else answer.text)


def _text_format(file: str, unit: UnitChoice, chosen: TextChoice | None) -> Any:
    if chosen is not None:
        return chosen.value
    if unit is UnitChoice.turn:
        return "chat"
    ending = Path(file.removesuffix(".gz")).suffix.lower()
    return "markdown" if ending in (".md", ".markdown") else "text"
