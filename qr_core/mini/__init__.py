"""The embedded default model: its weights and tokenizer (`model/`), its card, and the scripts that train it.

The scorer loads the folder like any other model's; nothing outside this folder knows how it was made.
"""
