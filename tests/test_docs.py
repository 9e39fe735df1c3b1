"""What README and the guides say is so: their Python runs, their commands parse or run, messages exist, names too.

Every Python block runs, in its file's order and with the embedded model, unless the line before it says
`<!-- not run: why -->`. Blocks marked `sh` run; in all others every `qrhead` command must have options that exist.
"""

from __future__ import annotations

import ast
import asyncio
import doctest
import gc
import inspect
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import pytest
import typer.main

import qr_core
from qr_core.cli.main import app
from qr_core.mini import embedded_model
from tests.stub_endpoint import serving

ROOT = Path(qr_core.__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")] + sorted((ROOT / "docs").glob("*.md"))
FENCE = re.compile(r"(?:<!-- not run: (?P<why>[^\n]+) -->\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
PACKAGES = ("qr_core", "qr_core.server", "langchain_qrhead", "llama_index.postprocessor.qrhead")


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    kind: str
    text: str
    why_not: str | None


BLOCKS = [
    Block(path.relative_to(ROOT).as_posix(), found["kind"], found["text"], found["why"])
    for path in PAGES
    for found in FENCE.finditer(path.read_text(encoding="utf-8"))
]
PYTHON_PAGES = sorted({block.page for block in BLOCKS if block.kind == "python"})


def commands(text: str) -> Iterator[list[str]]:
    """The words of every `qrhead` command of a block, without the program's name."""
    for line in text.replace("\\\n", " ").splitlines():
        line = re.sub(r"^printf .*\| *", "", line.strip())
        if re.match(r"(\S*/)?qrhead ", line):
            words = shlex.split(line, comments=True)
            yield words[1 : words.index("&") if "&" in words else None]


@pytest.fixture
def sample(tmp_path, monkeypatch):
    """A folder with the files that pages name, in which their code runs."""
    demo = files("qr_core.demo")
    articles = demo.joinpath("articles.jsonl").read_text("utf-8")
    manual = demo.joinpath("manual.md").read_text("utf-8")
    rows = [json.loads(line) for line in articles.splitlines()][:8]
    examples = [
        {"query": row["title"], "documents": [other["text"] for other in rows], "gold": [place]}
        for place, row in enumerate(rows)
    ]
    (tmp_path / "docs.jsonl").write_text(articles, "utf-8")
    (tmp_path / "manual.md").write_text(manual, "utf-8")
    (tmp_path / "examples.jsonl").write_text("\n".join(map(json.dumps, examples)))
    own = tmp_path / "FOLDER"
    (own / "qrels").mkdir(parents=True)
    (own / "corpus.jsonl").write_text("\n".join(json.dumps({"_id": r["id"], "text": r["text"]}) for r in rows))
    (own / "queries.jsonl").write_text("\n".join(json.dumps({"_id": r["id"], "text": r["title"]}) for r in rows[:3]))
    (own / "qrels" / "test.tsv").write_text("\n".join(["head", *(f"{r['id']}\t{r['id']}\t1" for r in rows[:3])]))
    monkeypatch.chdir(tmp_path)
    return manual, rows


def prelude(page: str, embedded, manual: str, rows: list[dict]) -> dict:
    """What a page takes as given."""
    texts = [row["text"] for row in rows]
    query = "How long does a refund take?"
    found = {"QRScorer": qr_core.QRScorer, "qr_core": qr_core, "scorer": embedded, "query": query, "question": query}
    found |= {"text": manual, "long_text": manual, "documents": texts, "text_or_documents": manual, "client": "c"}
    found |= {"path": Path("examples.jsonl"), "model": str(embedded_model())}
    found |= {"generating_model": "embedded-fast", "encoder": str(embedded_model())}
    if page == "docs/adapters.md":
        from langchain_core.embeddings import DeterministicFakeEmbedding
        from langchain_core.language_models.fake_chat_models import FakeListChatModel
        from langchain_core.vectorstores import InMemoryVectorStore
        from llama_index.core import Document, MockEmbedding, Settings, VectorStoreIndex
        from llama_index.core.llms import MockLLM

        Settings.llm, Settings.embed_model = MockLLM(), MockEmbedding(8)
        found["index"] = VectorStoreIndex.from_documents([Document(text=text) for text in texts])
        found["dense"] = InMemoryVectorStore.from_texts(texts, DeterministicFakeEmbedding(size=8)).as_retriever()
        found |= {"model": FakeListChatModel(responses=["Five days."]), "tools": []}
    return found


def test_there_is_code_to_run():
    assert {"README.md", "docs/adapters.md", "docs/long-context.md", "docs/serving.md"} <= set(PYTHON_PAGES)
    skipped = [block for block in BLOCKS if block.kind == "python" and block.why_not]
    assert len(skipped) <= 3, "code that is not run goes stale"


@pytest.mark.parametrize("page", PYTHON_PAGES)
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_python_runs(page, embedded, sample, monkeypatch):
    monkeypatch.delenv("QRHEAD_API_KEYS", raising=False)
    with serving() as server:
        monkeypatch.setattr("qr_core.generation.endpoint.RETRIES", 0)
        names = prelude(page, embedded, *sample)
        for block in (block for block in BLOCKS if block.page == page and block.kind == "python"):
            if block.why_not:
                compile(block.text, page, "exec")
                continue
            source = block.text.replace("http://localhost:8000/v1", server.url)
            code = compile(source, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            waited = eval(code, names)  # noqa: S307 - the pages are ours
            if inspect.isawaitable(waited):
                asyncio.run(waited)
    names.clear()
    gc.collect()  # LlamaIndex's chat memory leaves a connection open, which is to be noticed here and not later


@pytest.mark.parametrize(
    ("page", "words"),
    [
        pytest.param(block.page, words, id=f"{block.page} {' '.join(words)[:50]}")
        for block in BLOCKS
        for words in commands(block.text)
    ],
)
def test_commands_have_options_that_exist(page, words, sample):
    command, names = typer.main.get_command(app), []
    while hasattr(command, "commands"):
        names.append(words[0])
        command, words = command.commands[words[0]], words[1:]
    for place, word in enumerate(words):  # options that check that their file exists
        if word.startswith("--") and place + 1 < len(words) and words[place + 1].endswith((".txt", ".json", ".jsonl")):
            Path(words[place + 1]).touch()
    try:
        command.make_context(" ".join(names), ["1" if word == "N" else word for word in words])
    except Exception as error:  # typer has click within itself, or beside it
        pytest.fail(f"{page}: {error}")


@pytest.mark.parametrize("page", sorted({block.page for block in BLOCKS if block.kind == "sh"}))
def test_shell_runs(page, run, sample):
    listed = [words for block in BLOCKS if block.page == page and block.kind == "sh" for words in commands(block.text)]
    assert listed
    for words in listed:
        status, out, err = run(*words)
        assert status == 0, err
        assert out or err


def test_docstring_examples():
    tried = 0
    for path in sorted((ROOT / "qr_core").rglob("*.py")):
        if ">>>" in path.read_text(encoding="utf-8"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            failed, done = doctest.testmod(import_module(name))
            assert failed == 0, name
            tried += done
    assert tried >= 5


def test_messages_that_pages_explain_exist():
    """Each message in the tables of troubleshooting, part by part, stands in the source."""
    said = ""
    for path in [*(ROOT / "qr_core").rglob("*.py"), *(ROOT / "integrations").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                said += "".join(v.value if isinstance(v, ast.Constant) else "\0" for v in node.values) + "\n"
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                said += f"{node.value}\n"
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `([^`]+)`", page, re.M)
    assert len(messages) > 20
    for message in messages:
        for part in re.split(r" ?\.\.\. ?", message):
            for piece in re.split(r"[()]", part):
                assert piece.strip() in said, message


def test_links_lead_somewhere():
    for path in PAGES + sorted((ROOT / "docs" / "reference").glob("*.md")):
        for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
            file = target.partition("#")[0]
            if file and ":" not in file:
                assert (path.parent / file).exists(), f"{path.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_files_that_pages_name_exist(page):
    folders = "docs|integrations|notebooks|qr_core|tests|tools"
    named = re.findall(rf"(?<![\w./-])((?:{folders})/[\w./-]*[\w/])", page.read_text("utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


def documented() -> set[str]:
    pages = (ROOT / "docs" / "reference").glob("*.md")
    return {name for page in pages for name in re.findall(r"^::: ([\w.]+)$", page.read_text("utf-8"), re.M)}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_exported_name_is_documented_and_there(package):
    module = import_module(package)
    assert module.__all__ == sorted(module.__all__)
    missing = [name for name in module.__all__ if f"{package}.{name}" not in documented()]
    assert missing == []
    assert all(getattr(module, name) is not None for name in module.__all__)


def test_every_documented_name_is_there_and_says_what_it_is():
    assert len(documented()) > 40
    for name in documented():
        module, _, last = name.rpartition(".")
        found = getattr(import_module(module), last)
        assert last == "__version__" or inspect.getdoc(found), name


def test_the_picture_is_small():
    picture = ROOT / "docs" / "images" / "explanation.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size < 150_000


def test_the_citation_names_paper_and_version():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert "arXiv:2506.09944" in text
    assert f"\nversion: {qr_core.__version__}\n" in text


@pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="no checkout")
def test_the_changelog_has_this_version_or_what_is_to_come():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "## Unreleased" in text or f"## [{qr_core.__version__}]" in text
    assert set(re.findall(r"^### (\w+)$", text, re.M)) <= {
        "Added",
        "Changed",
        "Deprecated",
        "Removed",
        "Fixed",
        "Security",
    }
