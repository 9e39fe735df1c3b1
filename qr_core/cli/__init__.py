"""Command line: `qrhead`, see `main`.

One module a command or a group of them, `common` for what several share. `flat` turns options classes into options.
"""
