"""Errors: every failure a caller can act on, each a `QRHeadError` with one clear line.

The command line prints that line and exits with status 2.
"""

from __future__ import annotations

ENDINGS = (KeyboardInterrupt, SystemExit, GeneratorExit)
"""What ends a program or a generator, and is no failure. Extensions in Rust raise others that are no `Exception`."""


class QRHeadError(Exception):
    """Base of all errors that this package raises on purpose."""


class InputError(QRHeadError, ValueError):
    """A query, document or option is not usable; the message names it and the fix."""


class ContextLengthError(InputError):
    """The prompt is longer than the model's context."""


class HeadSetError(QRHeadError, ValueError):
    """A head set is unknown, malformed, or belongs to another model or template."""


class ModelLoadError(QRHeadError):
    """A model or its tokenizer is missing, broken or not supported."""


class GenerationError(QRHeadError):
    """A generator could not answer: it is unreachable, refuses, times out, or its reply makes no sense."""


class NonFiniteError(QRHeadError, ArithmeticError):
    """The model's attention is not finite, so no score exists."""


class MemoryLimitError(QRHeadError, MemoryError):
    """There is not enough memory for a prompt, even in small pieces."""


class StoppedError(QRHeadError):
    """A long run cannot go on; what is done is kept."""


def reason_of(error: BaseException) -> str:
    """The first line of a foreign error's message that is not blank, or the error's type where there is none."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)


def missing_extra(error: ImportError, extra: str) -> str:
    """What to say when a package that one of this package's extras brings cannot be imported."""
    return f"{error.name or 'a package'} is missing: pip install 'qrhead[{extra}]'"
