"""Command line: `qrhead serve`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from qr_core.cli.common import scorer_of
from qr_core.errors import InputError
from qr_core.options import ScorerOptions
from qr_core.server.settings import Settings


def serve(
    scorer: ScorerOptions,
    settings: Settings,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for any free one.", min=0, max=65535)] = 8080,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help="File of API keys, a line each: KEY or NAME KEY. Also read: QRHEAD_API_KEYS."),
    ] = None,
    allow_open: Annotated[
        bool, typer.Option("--allow-open", help="Serve other machines without API keys as well.")
    ] = False,
) -> None:
    """Serve rankings over HTTP, for clients of Cohere, Jina and Text Embeddings Inference. Logs go to stderr."""
    try:
        from qr_core.server import ApiKeys, create_app
        from qr_core.server.logs import setup
        from qr_core.server.run import check_exposure
        from qr_core.server.run import serve as run
    except ImportError as error:
        raise InputError(str(error)) from error

    settings = replace(settings, keys=ApiKeys.load(api_key_file))
    check_exposure(host, len(settings.keys), allow_open)
    app = create_app(scorer_of(scorer), settings)
    app.state.service.load()  # a model that cannot be loaded is one line and status 2, not a server that is never ready
    setup(sys.stderr)
    run(app, settings, host, port)
