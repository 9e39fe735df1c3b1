"""LangChain: rerank and prune retrieved documents, and agents' tool messages, by query-focused attention."""

from typing import TYPE_CHECKING, Any

from qr_core.errors import missing_extra

try:
    from langchain_qrhead.compressor import QRHeadCompressor
except ModuleNotFoundError as error:
    if error.name is not None and error.name.split(".")[0] == "langchain_core":
        raise ImportError(missing_extra(error, "langchain")) from error
    raise

if TYPE_CHECKING:
    from langchain_qrhead.middleware import QRHeadContextMiddleware

__all__ = ["QRHeadCompressor", "QRHeadContextMiddleware"]


def __getattr__(name: str) -> Any:
    """The middleware is imported when it is first used: only agents need the whole of LangChain."""
    if name != "QRHeadContextMiddleware":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from langchain_qrhead.middleware import QRHeadContextMiddleware
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.split(".")[0] == "langchain":
            raise ImportError("agents need langchain: pip install 'qrhead[langchain]' langchain") from error
        raise
    return QRHeadContextMiddleware
