"""Hosts: under which names the server may be asked, and from which sites' pages.

A page of another site may give its own name the address of this machine (DNS rebinding); the browser then lets it read
the answers. It cannot hide the name by which it asks, nor where it comes from. Knows nothing of keys.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from qr_core.server.answers import Refusal


class Hosts:
    """ASGI middleware that refuses requests under foreign names, or from foreign pages, with 403.

    Parameters
    ----------
    app : ASGI application
    allowed : sequence of str
        Names that are answered besides those of this machine. With none, every name is answered on addresses that
        other machines can reach.
    """

    def __init__(self, app: ASGIApp, allowed: Sequence[str] = ()) -> None:
        self.app = app
        self.allowed = frozenset(name.lower() for name in allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Go on if the names are right."""
        if scope["type"] == "http":
            asked = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
            origins = [value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"]
            here = asked[0].lower() if asked else ""
            server = scope.get("server")
            if (self.allowed or is_loopback(str(server[0]) if server else "")) and not self._known(_name(here)):
                raise Refusal(403, "forbidden", "this name of the server is not known: --allowed-hosts can name it")
            for origin in origins:
                if _host_of(origin) != here and _name(_host_of(origin)) not in self.allowed:
                    raise Refusal(403, "forbidden", "pages of other sites are not served: --allowed-hosts can name one")
        await self.app(scope, receive, send)

    def _known(self, name: str) -> bool:
        return name in self.allowed or is_loopback(name)


def is_loopback(host: str) -> bool:
    """Whether a name or an address is that of this machine, for this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _host_of(origin: str) -> str:
    """The host and port of an origin; blank when it has none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _name(host: str) -> str:
    """A host's name or address without its port; blank when there is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
