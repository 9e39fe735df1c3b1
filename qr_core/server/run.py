"""Run: the application on a socket, until a signal; then accepted requests are finished, within the grace period."""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from types import FrameType
from typing import NoReturn

import uvicorn
from fastapi import FastAPI

from qr_core.errors import InputError
from qr_core.server.hosts import is_loopback
from qr_core.server.logs import log, log_event
from qr_core.server.patience import KERNEL_BYTES, patient
from qr_core.server.service import Service
from qr_core.server.settings import Settings

CLOSING_SECONDS = 2
"""Of the grace period, for what comes after the last answer: one to close connections, one for the process to end."""


class DrainingServer(uvicorn.Server):
    """uvicorn's server. On a signal it answers what it has accepted, refuses everything else, and then closes.

    Parameters
    ----------
    config : uvicorn.Config
    service : Service
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service
        self.stop_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Begin to stop; at the second signal stop at once."""
        if self.stop_at is not None:
            self.should_exit = self.force_exit = True
            return
        self.service.draining = True
        self.stop_at = time.monotonic() + max(0.0, self.service.settings.grace - CLOSING_SECONDS)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Log where it listens, once it does."""
        await super().startup(sockets)
        address = self.servers[0].sockets[0].getsockname()
        keys = len(self.service.settings.keys)
        log_event("listening", host=address[0], port=address[1], model=self.service.model_name, keys=keys)
        if not keys:
            log.warning("no API keys: all who ask share what is cached; an address has one share of queue and memory")

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether it is time to close."""
        if self.stop_at is not None and not self.should_exit:
            if not self.service.in_flight:
                self.should_exit = True
            elif time.monotonic() > self.stop_at:
                log_event("grace is over", in_flight=self.service.in_flight)
                self.service.queue.close()  # which tells those who still wait
                self.should_exit = True
        return await super().on_tick(counter)


def serve(app: FastAPI, settings: Settings, host: str, port: int) -> NoReturn:
    """Serve until told to stop; then end the process, with status 1 when a forward pass was still running.

    Raises
    ------
    InputError
        When the address cannot be bound.
    """
    service: Service = app.state.service
    bound = bind(host, port)
    server = DrainingServer(configured(app, settings), service)
    server.run(sockets=[bound])
    busy = service.queue.busy
    log_event("stopped", unfinished=service.in_flight + busy)
    # Python would wait for a forward pass whose result is no longer needed, and for seconds while torch is torn down:
    # the grace period has no room for either.
    logging.shutdown()
    sys.stderr.flush()
    os._exit(int(busy))


def configured(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """How uvicorn serves the application."""
    return uvicorn.Config(
        app,
        http=patient(settings.body_timeout, settings.max_connections),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,  # it would hold query strings
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )


def check_exposure(host: str, keys: int, allow_open: bool) -> None:
    """Refuse to serve other machines without API keys.

    Raises
    ------
    InputError
        When `host` resolves to an address that other machines can reach.
    """
    if keys or allow_open:
        return
    try:
        addresses = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError as error:
        raise InputError(f"host {host!r} is not known: {error}") from error
    if not all(map(is_loopback, addresses)):
        raise InputError(
            f"{host} can be reached from other machines: give API keys (--api-key-file, or QRHEAD_API_KEYS in the "
            "environment), or say --allow-open if everyone may use this server"
        )


def bind(host: str, port: int) -> socket.socket:
    """A socket that can be listened on.

    Raises
    ------
    InputError
        When the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)  # connections inherit it
        bound.bind((host, port))
        bound.set_inheritable(True)
    except (OSError, OverflowError) as error:
        bound.close()
        raise InputError(f"cannot listen on {host}, port {port}: {error}") from error
    return bound
