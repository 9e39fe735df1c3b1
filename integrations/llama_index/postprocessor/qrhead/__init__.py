"""LlamaIndex: rerank retrieved nodes by query-focused attention."""

from qr_core.errors import missing_extra

try:
    from llama_index.postprocessor.qrhead.base import QRHeadRerank
except ModuleNotFoundError as error:
    if error.name is not None and error.name.startswith("llama_index.core"):
        raise ImportError(missing_extra(error, "llama-index")) from error
    raise

__all__ = ["QRHeadRerank"]
