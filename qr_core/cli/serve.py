"""Command line: `qrhead serve`.

Knows nothing of HTTP: options become a scorer and settings.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from qr_core.cli.common import (
    Device,
    DeviceMap,
    DocumentOrder,
    Dtype,
    Heads,
    Mismatch,
    Model,
    OrderOption,
    RemoteCode,
    Revision,
    TemplateOption,
    Window,
    make_scorer,
)
from qr_core.errors import InputError


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for any free one.", min=0, max=65535)] = 8080,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help="File of API keys, a line each: KEY or NAME KEY. Also read: QRHEAD_API_KEYS."),
    ] = None,
    allow_open: Annotated[
        bool, typer.Option("--allow-open", help="Serve other machines without API keys as well.")
    ] = False,
    model: Model = None,
    heads: Heads = None,
    template: TemplateOption = None,
    order: OrderOption = DocumentOrder.given,
    max_prompt_tokens: Window = None,
    revision: Revision = None,
    device: Device = None,
    device_map: DeviceMap = None,
    dtype: Dtype = "auto",
    allow_model_mismatch: Mismatch = False,
    trust_remote_code: RemoteCode = False,
    max_body_bytes: Annotated[int, typer.Option(help="Largest request body.")] = 8 * 2**20,
    max_buffered_bytes: Annotated[int, typer.Option(help="All bodies held at a time.")] = 128 * 2**20,
    max_documents: Annotated[int, typer.Option(help="Most documents of a request.")] = 1000,
    max_tokens: Annotated[int, typer.Option(help="Most tokens of a request.")] = 131_072,
    max_queue: Annotated[int, typer.Option(help="Most requests that wait.")] = 64,
    max_connections: Annotated[int, typer.Option(help="Most connections.")] = 1024,
    body_timeout: Annotated[float, typer.Option(help="Seconds for a client to send and to take in.")] = 30.0,
    request_timeout: Annotated[float, typer.Option(help="Seconds until a request is given up.")] = 60.0,
    grace: Annotated[float, typer.Option(help="Seconds to finish what was accepted, once told to stop.")] = 30.0,
) -> None:
    """Serve rankings over HTTP, for clients of Cohere, Jina and Text Embeddings Inference. Logs go to stderr."""
    try:
        from qr_core.server import ApiKeys, Settings, create_app
        from qr_core.server.logs import setup
        from qr_core.server.run import check_exposure
        from qr_core.server.run import serve as run
    except ImportError as error:
        raise InputError(str(error)) from error

    settings = Settings(
        keys=ApiKeys.load(api_key_file),
        max_body_bytes=max_body_bytes,
        max_buffered_bytes=max_buffered_bytes,
        max_documents=max_documents,
        max_tokens=max_tokens,
        max_queue=max_queue,
        max_connections=max_connections,
        body_timeout=body_timeout,
        request_timeout=request_timeout,
        grace=grace,
        order=order.value,
    )
    check_exposure(host, len(settings.keys), allow_open)
    scorer = make_scorer(
        model,
        heads,
        template,
        device,
        dtype,
        revision=revision,
        device_map=device_map,
        max_prompt_tokens=max_prompt_tokens,
        allow_model_mismatch=allow_model_mismatch,
        trust_remote_code=trust_remote_code,
    )
    app = create_app(scorer, settings)
    app.state.service.load()  # a model that cannot be loaded is one line and status 2, not a server that is never ready
    setup(sys.stderr)
    run(app, settings, host, port)
