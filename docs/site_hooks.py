"""Pages of the site beside the guides: README, model card, CONTRIBUTING, SECURITY, CHANGELOG and the notebooks.

Links between files of the repository become links between pages; one to a file that is no page becomes its name.
"""

from __future__ import annotations

import json
import posixpath
import re
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mkdocs.structure.files import File, Files

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "qr_core/mini/model/README.md": "model-card.md",
    "qr_core/mini/fast/README.md": "model-card-fast.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "notebooks": "notebooks.md",
}
"""Files of the repository that are pages, beside those in docs/."""
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
_outputs: dict[str, str] = {}
"""HTML that a notebook shows, by the word that holds its place."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages whose files lie outside docs/."""
    for source, page in PAGES.items():
        if source != "notebooks":
            files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    listed = []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        text = _notebook(path)
        listed.append(f"- [{text.partition(chr(10))[0].removeprefix('# ')}](notebooks/{path.stem}.md)")
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
    intro = (
        "# Notebooks\n\nEach runs offline, top to bottom, with the embedded model; the files are in `notebooks/`.\n\n"
    )
    files.append(File.generated(config, "notebooks.md", content=intro + "\n".join(listed) + "\n"))
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Turn links between the repository's files into links between pages."""
    here = page.file.src_uri
    origin = {target: source for source, target in PAGES.items()}.get(here, f"docs/{here}")
    known = {file.src_uri for file in files}

    def moved(match: re.Match[str]) -> str:
        mark, words, target = match.groups()
        path, hash_, anchor = target.partition("#")
        if not path or ":" in path:
            return match[0]
        whole = posixpath.normpath(posixpath.join(posixpath.dirname(origin), path))
        found = PAGES.get(whole, whole.removeprefix("docs/"))
        if found not in known and not whole.startswith("docs/"):
            return str(words)  # no page; what is missing below docs/ is left to be complained of
        return f"{mark}[{words}]({posixpath.relpath(found, posixpath.dirname(here) or '.')}{hash_}{anchor})"

    return _LINK.sub(moved, markdown) if not here.startswith("reference/") else markdown


def on_page_content(html: str, **_: Any) -> str:
    """Put what notebooks show where its place was held."""
    return re.sub(r"<p>(notebookoutput\d+x)</p>", lambda match: _outputs.get(match[1], ""), html)


def _notebook(path: Path) -> str:
    """A notebook as Markdown."""
    pieces = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            pieces.append(source)
            continue
        pieces.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            name = f"notebookoutput{len(_outputs)}x"
            _outputs[name] = _shown(output)
            pieces.append(name)
    return "\n\n".join(pieces) + "\n"


def _shown(output: dict[str, Any]) -> str:
    """One output as HTML: the richest form that needs no script of the notebook's own."""
    data = output.get("data", {"text/plain": output.get("text", "")})
    if "image/png" in data:
        return f'<img alt="" src="data:image/png;base64,{"".join(data["image/png"]).strip()}">'
    if "text/html" in data:
        return "".join(data["text/html"])
    return f"<pre><code>{escape(''.join(data.get('text/markdown', data.get('text/plain', ''))))}</code></pre>"
