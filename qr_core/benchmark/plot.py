"""Plot: a report as a picture, one panel for each thing that was varied."""

from __future__ import annotations

from typing import Any

from qr_core.display import figures


def png(report: dict[str, Any]) -> bytes:
    """The picture of a report.

    Raises
    ------
    InputError
        When matplotlib is missing.
    """
    panels = [_lengths if len(report["lengths"]) > 1 else _bars] if report["lengths"] else []
    panels += [_depths] if report["depths"] else []
    panels += [_documents] if report["documents"] else []
    figure = figures.figure(5.2 * max(1, len(panels)), 4)
    for place, panel in enumerate(panels):
        panel(figure.add_subplot(1, len(panels), place + 1), report)
    c = report["conditions"]
    figure.suptitle(
        f"{c['model']}, {c['layers']} layers, hidden size {c['hidden']}, {c['dtype']}, {c['device']}, "
        f"{c['threads']} threads",
        fontsize=9,
    )
    return figures.png(figure, dpi=90)


def _bars(axes: Any, report: dict[str, Any]) -> None:
    entry = report["lengths"][0]
    names = list(entry["variants"])[::-1]
    axes.barh(names, [entry["variants"][name]["seconds"]["median"] for name in names])
    axes.set_xlabel("seconds")
    axes.set_title(f"{entry['tokens']} tokens", fontsize=10)


def _lengths(axes: Any, report: dict[str, Any]) -> None:
    sizes = [entry["tokens"] for entry in report["lengths"]]
    for name in report["lengths"][0]["variants"]:
        seconds = [entry["variants"][name]["seconds"]["median"] for entry in report["lengths"]]
        axes.loglog(sizes, seconds, marker="o", markersize=3, label=name)
    axes.set_xlabel("tokens")
    axes.set_ylabel("seconds")
    axes.legend(fontsize=7)
    axes.set_title("by length of the prompt", fontsize=10)


def _depths(axes: Any, report: dict[str, Any]) -> None:
    entries = sorted(report["depths"], key=lambda entry: entry["deepest"])
    depths = [entry["deepest"] for entry in entries]
    for key, label in (("published_of_plain", "published algorithm"), ("joint_of_plain", "qrhead")):
        axes.plot(depths, [entry[key] for entry in entries], marker="o", markersize=3, label=label)
    axes.plot(depths, [entry["expected"] for entry in entries], linestyle="--", color="grey", label="at most")
    axes.axhline(1, color="black", linewidth=0.6)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(f"deepest layer with a selected head, of 0-{report['conditions']['layers'] - 1}")
    axes.set_ylabel("time, of one plain forward pass")
    axes.legend(fontsize=7)
    axes.set_title("by depth", fontsize=10)


def _documents(axes: Any, report: dict[str, Any]) -> None:
    counts = [entry["documents"] for entry in report["documents"]]
    for name in report["documents"][0]["variants"]:
        seconds = [entry["variants"][name]["seconds"]["median"] for entry in report["documents"]]
        grows = report["document_exponents"].get(name)
        label = name if grows is None else f"{name}, to the power of {grows:.2f}"
        axes.loglog(counts, seconds, marker="o", markersize=3, label=label)
    axes.set_xlabel("documents")
    axes.set_ylabel("seconds")
    axes.legend(fontsize=7)
    axes.set_title("documents encoded independently", fontsize=10)
