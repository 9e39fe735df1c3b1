"""Examples that a planted head tells at once: a question's words stand in one document only."""

from __future__ import annotations

import random

from qr_core import Document, Example

WORDS = """
copper lantern marmalade orchard violin glacier pepper harbour candle thunder velvet anchor walnut meadow puzzle
saddle turnip wizard basket feather hammer island jacket kettle lemon mirror needle oyster pillow rocket
""".split()  # noqa: SIM905 - easier to read
PLANTED = (1, 2)


def example(number: int, documents: int = 10) -> Example:
    """A question whose words stand in one document only."""
    rng = random.Random(number)
    words = rng.sample(WORDS, 3 * documents)
    texts = [" ".join(words[3 * i : 3 * i + 3]) for i in range(documents)]
    gold = rng.randrange(documents)
    query = " ".join(rng.sample(texts[gold].split(), 3))
    return Example(f"e{number}", query, tuple(Document(text) for text in texts), (gold,))


EXAMPLES = [example(n) for n in range(12)]
