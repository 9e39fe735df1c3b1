"""The embedded default model: its weights and tokenizer (`model/`) and its card.

The scorer loads the folder like any other model's. `qr_core.training` has the scripts that made it.
"""

from importlib.resources import as_file, files
from pathlib import Path

EMBEDDED_NAME = "qrhead-mini"


def embedded_model() -> Path:
    """Folder of the model, as any code that loads a model from disk takes it."""
    with as_file(files("qr_core.mini").joinpath("model")) as folder:
        return folder
