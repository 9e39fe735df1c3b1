"""Dialects: the ways in which clients ask. Each is a file here, with its models, routes and errors, and an entry below.

An entry's routes are part of every application that `create_app` makes afterwards.
"""

from qr_core.registry import Registry
from qr_core.server.dialects import cohere, qrhead, tei
from qr_core.server.dialects.dialect import Ask, Asking, Dialect, new_router

__all__ = ["DIALECTS", "Ask", "Asking", "Dialect", "new_router"]

DIALECTS: Registry[Dialect] = Registry("dialect")
DIALECTS.add("cohere", cohere.DIALECT)  # and Jina, whose requests cannot be told from Cohere's
DIALECTS.add("tei", tei.DIALECT)
DIALECTS.add("qrhead", qrhead.DIALECT)
