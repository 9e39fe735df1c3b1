"""Command line for long context: `qrhead prune` and `qrhead ask`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qr_core.cli.common import FormatOption, Query, err, print_json, print_text, progress, scorer_of
from qr_core.display.terminal import plain
from qr_core.errors import InputError
from qr_core.fields import option
from qr_core.options import PruneOptions, ScorerOptions
from qr_core.text.chunking import TextFormat

if TYPE_CHECKING:
    from qr_core.generation import Generator
    from qr_core.scorer import QRScorer

CONTEXT_TOKENS = 2048
"""Most tokens of the text that a generator is given, unless the command says otherwise."""
File = Annotated[str, typer.Option("--file", help="A text file (also .gz), or - for standard input.")]
InputFormat = Annotated[
    TextFormat | None,
    typer.Option(help="Default: markdown for .md files, else text. chat: lines like 'Anna: ...'."),
]


@dataclass(frozen=True)
class GeneratorOptions:
    """Who answers a question, and at what length."""

    PANEL = "Answer"

    max_new_tokens: int = option(256, "Most tokens of the answer.", least=1)
    generator: str | None = option(
        None, "Hub id or folder of a model, or an OpenAI-compatible address. Default: --model."
    )
    generator_model: str | None = option(None, "Which model an address should use.")
    timeout: float = option(120.0, "Seconds to wait for an address.", least=0.1)

    def __post_init__(self) -> None:
        if self.generator_model is None:
            return
        if self.generator is None:
            raise InputError("--generator-model goes with an address: name it with --generator")
        if not self.generator.startswith(("http://", "https://")):
            raise InputError("--generator-model goes with an address; --generator names the model itself")

    def make(self, scorer: QRScorer) -> Generator:
        """The generator; by default the scorer's own model, with its weights."""
        from qr_core import generation
        from qr_core.mini import named_model

        if self.generator is None:
            if named_model(scorer.options.model).embedded:
                raise InputError(
                    "an embedded model ranks and prunes, it does not write sensibly: name a model that answers with "
                    "--generator (a folder or hub id, for example of SmolLM2-135M-Instruct, or an "
                    "OpenAI-compatible address)"
                )
            return generation.LocalGenerator(scorer.source, scorer.model_name)
        chosen = scorer.options
        more = {"device": chosen.device, "dtype": chosen.dtype, "trust_remote_code": chosen.trust_remote_code}
        return generation.generator_of(self.generator, self.generator_model, self.timeout, **more)


def prune(
    query: Query,
    file: File,
    pruning: PruneOptions,
    scorer: ScorerOptions,
    input_format: InputFormat = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Count tokens as this model's tokenizer does. Default: the scorer's.")
    ] = None,
    format_: FormatOption = "table",
) -> None:
    """Print the parts of a text that matter for a query, in their order."""
    from qr_core.files.inputs import read_source
    from qr_core.model.loading import ModelSource, load_tokenizer

    chosen = _chosen(pruning, file, input_format)
    text = read_source(file)
    if tokenizer is not None:
        chosen = chosen.changed(tokenizer=load_tokenizer(ModelSource(tokenizer)))
    made = scorer_of(scorer)
    with progress("encoding", tokens=True) as show:
        pruned = made.prune(query, text, options=chosen, progress=show)
    if format_ == "json":
        print_json(pruned.to_dict())
        return
    segments = f" of {pruned.segments} segments" if pruned.segments > 1 else ""
    about = f"kept {pruned.kept_tokens} of {pruned.total_tokens} tokens in {len(pruned.spans)} parts{segments}"
    err.print(plain(f"{about}, model {pruned.model}, heads {pruned.heads}"), soft_wrap=True)
    print_text(pruned.text)


def ask(
    query: Annotated[str, typer.Option(help="The question.")],
    file: File,
    *,
    answering: GeneratorOptions,
    pruning: PruneOptions = PruneOptions(max_tokens=CONTEXT_TOKENS),  # noqa: B008 - it cannot change
    scorer: ScorerOptions,
    input_format: InputFormat = None,
    format_: FormatOption = "table",
) -> None:
    """Select the parts of a text that matter for a question, and let a model answer from them.

    The key of an address is taken from the environment's OPENAI_API_KEY. Without --generator the model that
    --model names answers itself; the embedded one does not write.
    """
    from qr_core import generation
    from qr_core.files.inputs import read_source

    chosen = _chosen(pruning, file, input_format)
    text = read_source(file)
    made = scorer_of(scorer)
    generator = answering.make(made)
    with progress("encoding", tokens=True) as show:
        found = generation.ask(
            made,
            query,
            text,
            generator,
            max_tokens=chosen.max_tokens or CONTEXT_TOKENS,
            max_new_tokens=answering.max_new_tokens,
            options=chosen,
            progress=show,
        )
    if format_ == "json":
        print_json(found.to_dict())
        return
    kept = f"{found.pruned.kept_tokens} of {found.pruned.total_tokens} tokens, selected by {found.pruned.model}"
    err.print(plain(f"from {kept}; {found.generator} answers:"), soft_wrap=True)
    print_text(found.text)


def _chosen(pruning: PruneOptions, file: str, text_format: TextFormat | None) -> PruneOptions:
    """The options, checked before anything is read. A file's ending tells what its text is made of."""
    from qr_core.text.pruning import Budget
    from qr_core.text.units import UNITS

    Budget(pruning.max_tokens, pruning.top_k, pruning.min_relevance, pruning.min_keep)
    ending = Path(file.removesuffix(".gz")).suffix.lower()
    told = "markdown" if ending in (".md", ".markdown") else "text"
    return pruning.changed(text_format=text_format or UNITS[pruning.unit].text_format or told)
