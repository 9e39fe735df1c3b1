"""LangChain: rerank retrieved documents by query-focused attention.

Converts between LangChain's documents and the scorer's; knows nothing of how scores come about.
"""

try:
    from langchain_qrhead.compressor import QRHeadCompressor
except ModuleNotFoundError as error:
    if error.name is not None and error.name.split(".")[0] == "langchain_core":
        raise ImportError("langchain-core is not installed: pip install 'qrhead[langchain]'") from error
    raise

__all__ = ["QRHeadCompressor"]
