"""Command line of document folders: `qrhead cache show | purge`."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

import typer

from qr_core.cli.common import FormatOption, out, print_json
from qr_core.display.terminal import plain

Folder = Annotated[Path, typer.Argument(help="A folder given as --document-cache.")]


def show(folder: Folder, format_: FormatOption = "table") -> None:
    """Say how many documents a folder holds, their size, and when they were used."""
    from qr_core.cache.folder import entries

    found = entries(folder)
    size = sum(entry.bytes for entry in found)
    used = [datetime.fromtimestamp(entry.used, timezone.utc).isoformat(timespec="seconds") for entry in found]
    if format_ == "json":
        span = {"least_recently_used": used[0], "most_recently_used": used[-1]} if used else {}
        print_json({"folder": str(folder), "documents": len(found), "bytes": size, **span})
        return
    when = f", used {used[0]} to {used[-1]}" if used else ""
    out.print(f"{plain(str(folder))}: {len(found)} documents, {size / 2**20:.1f} MiB{when}", soft_wrap=True)


def purge(folder: Folder, format_: FormatOption = "table") -> None:
    """Remove every encoded document from a folder, and nothing else."""
    from qr_core.cache.folder import purge as remove

    count, size = remove(folder)
    if format_ == "json":
        print_json({"folder": str(folder), "removed": count, "bytes": size})
    else:
        out.print(f"{plain(str(folder))}: removed {count} documents, {size / 2**20:.1f} MiB", soft_wrap=True)
