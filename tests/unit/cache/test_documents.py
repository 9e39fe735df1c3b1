"""Document cache: what is found again, in memory and on disk, and what is never trusted."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import threading
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from qr_core import Document, InputError, QRScorer
from qr_core.attention.loaded import facts_of
from qr_core.attention.prefix import Prefix
from qr_core.cache import folder as document_folder
from qr_core.cache.documents import DocumentCache, Keys
from qr_core.cache.folder import DocumentFolder, entries, purge
from qr_core.model.fingerprint import fingerprint
from tests.helpers import DOCUMENTS, GOLDEN, QUERY, in_order

OPTIONS = {"template": "plain", "device": "cpu", "dtype": "float32", "layout": "independent", "cache_bytes": 0}
HEADS = "1-1,2-2"
OTHER = Document("Ferries to the island leave at noon and at six.", "Ferries")


def scorer_of(cache=None, model="tiny-llama", heads=HEADS, **options) -> QRScorer:
    return QRScorer.from_pretrained(GOLDEN / model, heads, document_cache=cache, **OPTIONS | options)


@pytest.fixture(scope="module")
def expected() -> list[float]:
    return in_order(scorer_of(DocumentCache(0)).rank(QUERY, DOCUMENTS))


@pytest.fixture
def counted(monkeypatch):
    """Documents encoded since: tokens of every forward pass of a scorer that are no query's."""

    def count(scorer: QRScorer) -> list[tuple[int, int]]:
        scorer.rank(QUERY, ["Something else."])  # loads, and makes the trials
        model = scorer.reader.model.at_depth(scorer.heads.deepest)
        shapes: list[tuple[int, int]] = []
        forward = model.forward

        def noted(*args, **kwargs):
            shapes.append(tuple(kwargs["input_ids"].shape))
            return forward(*args, **kwargs)

        monkeypatch.setattr(model, "forward", noted)
        return shapes

    return count


def entry(size: int = 4, layers: int = 2, value: float = 1.0) -> Prefix:
    made = tuple(torch.full((1, 2, size, 8), float(value + layer)) for layer in range(layers))
    return Prefix(made, tuple(-tensor for tensor in made))


def key_of(*ids: int) -> str:
    return Keys("model", 1, [1, 2], None).of(ids)


def test_a_warm_document_is_not_run_again(counted):
    scorer = scorer_of()
    shapes = counted(scorer)
    first = scorer.rank(QUERY, DOCUMENTS)
    passes = 2  # the query's and that of N/A
    assert len(shapes) > passes
    documents = sum(batch for batch, _ in shapes[:-passes])
    assert documents == len(DOCUMENTS)
    shapes.clear()
    again = scorer.rank("Another question?", [DOCUMENTS[2], DOCUMENTS[0]])  # another combination, order, query
    assert len(shapes) == passes
    shapes.clear()
    scorer.rank(QUERY, [*DOCUMENTS, OTHER])
    assert sum(batch for batch, _ in shapes[:-passes]) == 1
    assert in_order(scorer.rank(QUERY, DOCUMENTS)) == in_order(first)
    assert len(again) == 2


def test_the_same_document_twice_is_run_once(counted):
    scorer = scorer_of()
    shapes = counted(scorer)
    scorer.rank(QUERY, [OTHER] * 5)
    assert [batch for batch, _ in shapes] == [1, 1, 1]  # document, query, N/A


def test_the_bound_holds_and_the_least_recently_used_goes():
    cache = DocumentCache(3 * entry().bytes)
    for number in range(3):
        cache.put({key_of(number): entry()})
    cache.get({key_of(0): 4}, entry())
    cache.put({key_of(3): entry()})
    found = cache.get({key_of(number): 4 for number in range(4)}, entry())
    assert found.keys() == {key_of(0), key_of(2), key_of(3)}
    assert cache.bytes == 3 * entry().bytes
    cache.put({key_of(9): entry(100)})  # larger than everything: not kept, pushes nothing out
    assert len(cache) == 3
    cache.clear()
    assert len(cache) == cache.bytes == 0


def test_keys_tell_everything_apart():
    base = ("model", 1, (1, 2), None)
    others = [("other", 1, (1, 2), None), ("model", 2, (1, 2), None), ("model", 1, (1,), None), ("model", 1, (1, 2), 9)]
    keys = {Keys(*about).of((5, 6)) for about in [base, *others]}
    keys |= {Keys(*base).of(ids) for ids in [(), (5,), (56,), (6, 5)]}
    assert len(keys) == 9
    assert Keys(*base).of((5, 6)) == Keys(*base).of([5, 6])


def test_fingerprints_tell_models_apart_and_know_copies(tmp_path, save_tiny):
    from tests.architectures import FAMILIES

    folder = save_tiny(FAMILIES["llama"]())
    shutil.copytree(folder, tmp_path / "copy")
    other = save_tiny(FAMILIES["llama"](), seed=1)

    def mark(folder, deepest=1, loaded=1, dtype="float32"):
        shared = QRScorer.from_pretrained(folder, "1-1", **OPTIONS | {"dtype": dtype}).reader.model
        return fingerprint(shared.at_depth(loaded), shared.config, deepest)

    here = mark(folder)
    assert here[1]
    assert here == mark(tmp_path / "copy") == mark(folder, loaded=3)
    different = [mark(other), mark(folder, deepest=2, loaded=2), mark(folder, dtype="bfloat16")]
    assert len({here, *different}) == 4
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.1.self_attn.k_proj.weight"
    save_file(weights | {name: weights[name] * 1.001}, folder / "model.safetensors", {"format": "pt"})
    shared = QRScorer.from_pretrained(folder, "1-1", **OPTIONS).reader.model
    shared.forget()
    assert fingerprint(shared.at_depth(1), shared.config, 1) != here


def test_weights_that_show_no_values_are_known_to_this_process_only(monkeypatch, tmp_path):
    scorer = scorer_of(tmp_path / "cache")
    model = scorer.reader.model.at_depth(2)

    def hidden(*_):
        raise NotImplementedError("meta tensor")

    facts = facts_of(model)
    monkeypatch.setattr(facts, "fingerprints", {})
    monkeypatch.setattr(torch.Tensor, "reshape", hidden)
    first = fingerprint(model, scorer.reader.model.config, 2)
    monkeypatch.undo()
    assert not first[1]
    monkeypatch.setattr(facts, "fingerprints", {2: first})
    scorer.rank(QUERY, DOCUMENTS)
    assert len(scorer.document_cache) == len(DOCUMENTS) + 1
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="modes")
def test_the_folder_is_private(tmp_path, expected):
    old = os.umask(0)
    try:
        scorer_of(tmp_path / "a" / "cache").rank(QUERY, DOCUMENTS)
    finally:
        os.umask(old)
    folder = tmp_path / "a" / "cache"
    assert folder.stat().st_mode & 0o777 == 0o700
    files = list(folder.iterdir())
    assert len(files) == len(DOCUMENTS)
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert not any(word in path.read_bytes() for path in files for word in (b"lighthouse", b"Harbour", b"oven"))
    folder.chmod(0o750)
    with pytest.raises(InputError, match="open to other users"):
        DocumentFolder(folder)
    folder.chmod(0o700)
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(InputError, match="a link or no folder"):
        DocumentFolder(tmp_path / "link")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot make the document cache"):
        DocumentFolder(tmp_path / "file")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_another_process_s_entries_are_used(tmp_path, counted, dtype):
    first = scorer_of(tmp_path / "cache", dtype=dtype)
    ranking = first.rank(QUERY, DOCUMENTS)
    second = scorer_of(tmp_path / "cache", dtype=dtype)  # as a fresh process: nothing in memory
    shapes = counted(second)
    assert in_order(second.rank(QUERY, DOCUMENTS)) == in_order(ranking)
    assert len(shapes) == 2  # query and N/A


@pytest.mark.parametrize("heads", ["1-1", "0-3,2-2"])
def test_depths_do_not_mix(tmp_path, heads):
    scorer_of(tmp_path / "cache").rank(QUERY, DOCUMENTS)
    before = len(entries(tmp_path / "cache"))
    other = scorer_of(tmp_path / "cache", heads=heads)
    assert in_order(other.rank(QUERY, DOCUMENTS)) == pytest.approx(
        in_order(scorer_of(DocumentCache(0), heads=heads).rank(QUERY, DOCUMENTS)), abs=1e-6
    )
    assert len(entries(tmp_path / "cache")) == before * (2 if heads == "1-1" else 1)


def flipped(path):
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 1
    path.write_bytes(raw)


def truncated(path):
    path.write_bytes(path.read_bytes()[:-100])


def emptied(path):
    path.write_bytes(b"")


def nonsense(path):
    path.write_bytes((2**40).to_bytes(8, "little") + b"[" * 5000)


def huge(path):
    with path.open("ab") as file:
        file.truncate(100 * 2**20)


def relabelled(path):
    """Another document's entry under this name."""
    other = next(p for p in path.parent.iterdir() if p != path and p.stat().st_size != path.stat().st_size)
    path.write_bytes(other.read_bytes())


def reshaped(path, change=lambda tensor: tensor[:, :, :1].clone()):
    """A consistent entry under the right key, of another shape."""
    found = load_file(path)
    names = {name: change(tensor) for name, tensor in found.items()}
    about = {"format": document_folder.FORMAT, "key": path.stem, "content": document_folder._checksum(names)}
    save_file(names, path, about)


def retyped(path):
    reshaped(path, lambda tensor: tensor.to(torch.bfloat16))


def linked(path):
    target = path.parent.parent / "elsewhere"
    path.rename(target)
    path.symlink_to(target)


def piped(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "damage", [flipped, truncated, emptied, nonsense, huge, relabelled, reshaped, retyped, linked, piped]
)
def test_what_is_not_sound_is_made_again(tmp_path, expected, counted, damage, caplog):
    folder = tmp_path / "cache"
    scorer_of(folder).rank(QUERY, DOCUMENTS)
    damaged = sorted(folder.iterdir())
    for path in damaged:
        shutil.copy(path, tmp_path / path.name)
    damage(damaged[0])
    fresh = scorer_of(folder)
    shapes = counted(fresh)
    assert in_order(fresh.rank(QUERY, DOCUMENTS)) == pytest.approx(expected, abs=1e-6)
    assert [batch for batch, _ in shapes] == [1, 1, 1]  # one document, query, N/A
    assert "not usable" in caplog.text
    assert damaged[0].is_file()
    assert not damaged[0].is_symlink()
    assert load_file(damaged[0]).keys() == load_file(tmp_path / damaged[0].name).keys()
    if damage is linked:
        assert (tmp_path / "elsewhere").exists()  # what a link points to is not ours to remove


def test_another_models_entry_is_not_taken(tmp_path, save_tiny):
    """The same shapes, documents and names, other weights; even under the name that is looked for."""
    from tests.architectures import FAMILIES

    folders = [save_tiny(FAMILIES["llama"](), seed=seed) for seed in (0, 1)]
    scorers = [QRScorer.from_pretrained(f, "1-1", document_cache=tmp_path / f.name, **OPTIONS) for f in folders]
    scores = [in_order(scorer.rank(QUERY, DOCUMENTS)) for scorer in scorers]
    names = [{path.stat().st_size: path for path in (tmp_path / f.name).iterdir()} for f in folders]
    assert not {p.name for p in names[0].values()} & {p.name for p in names[1].values()}
    for size, path in names[0].items():
        shutil.copy(path, names[1][size])
    again = QRScorer.from_pretrained(folders[1], "1-1", document_cache=tmp_path / folders[1].name, **OPTIONS)
    assert in_order(again.rank(QUERY, DOCUMENTS)) == pytest.approx(scores[1], abs=1e-6)


def test_the_folder_keeps_to_its_bound(tmp_path):
    folder = DocumentFolder(tmp_path / "cache", 40_000)
    size = None
    for number in range(30):
        folder.put({key_of(number): entry(16, value=number)})
        size = size or entries(folder.path)[0].bytes
        os.utime(folder.path / f"{key_of(number)}.safetensors", (number, number))
        if number >= 3:
            assert folder.get(key_of(0), entry(), 16) is not None  # used all the time: the newest, by access
        assert sum(e.bytes for e in entries(folder.path)) <= 40_000
    kept = {path.stem for path in folder.path.iterdir()}
    assert key_of(0) in kept
    assert key_of(29) in kept
    assert key_of(1) not in kept
    folder.put({key_of(99): entry(1000)})  # larger than the bound
    assert key_of(99) not in {path.stem for path in folder.path.iterdir()}


def test_what_is_not_an_entry_is_left_alone(tmp_path):
    folder = DocumentFolder(tmp_path / "cache", 10**6)
    folder.put({key_of(1): entry()})
    others = ["notes.txt", "0123.safetensors", "model.safetensors"]
    for name in others:
        (folder.path / name).write_text("mine")
    (folder.path / f"{key_of(2)}.safetensors").symlink_to(folder.path / "notes.txt")
    draft, old = (folder.path / f".{key_of(3)}.{n}.0123abcd.tmp" for n in (1, 2))
    draft.write_text("half")
    old.write_text("half")
    os.utime(old, (time.time() - 10_000,) * 2)
    folder.put({key_of(4): entry()})
    assert draft.exists()
    assert not old.exists()
    assert purge(folder.path)[0] == 3  # two entries and the draft
    assert sorted(path.name for path in folder.path.iterdir()) == sorted([*others, f"{key_of(2)}.safetensors"])


def test_a_full_disk_is_a_warning(tmp_path, monkeypatch, expected, caplog):
    scorer = scorer_of(tmp_path / "cache")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(document_folder.os, "replace", full)
    assert in_order(scorer.rank(QUERY, DOCUMENTS)) == pytest.approx(expected, abs=1e-6)
    assert "No space left on device" in caplog.text
    assert list((tmp_path / "cache").iterdir()) == []


def work(folder, seed, failed):
    """One of several processes that read and write the same entries, with a bound that makes them evict."""
    try:
        torch.set_num_threads(1)
        shared = DocumentFolder(folder, 60_000)
        for step in range(60):
            number = (step * (7 + seed)) % 12
            found = shared.get(key_of(number), entry(), 16)
            if found is not None and not torch.equal(found.keys[0], entry(16, value=number).keys[0]):
                failed.put(f"{number} is not what was put")
            shared.put({key_of(number): entry(16, value=number)})
    except Exception as error:
        failed.put(repr(error))


def test_processes_share_a_folder(tmp_path):
    context = multiprocessing.get_context("fork")
    failed = context.Queue()
    processes = [context.Process(target=work, args=(tmp_path / "cache", seed, failed)) for seed in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert failed.empty()
    found = entries(tmp_path / "cache")
    assert not any(e.unfinished for e in found)
    assert sum(e.bytes for e in found) <= 60_000


def test_threads_share_a_cache(expected):
    cache = DocumentCache(20 * 2**10)  # a few documents: entries come and go
    scorers = [scorer_of(cache), scorer_of(cache)]
    wrong: list[object] = []

    def ask(scorer):
        for _ in range(5):
            found = in_order(scorer.rank(QUERY, DOCUMENTS))
            if found != pytest.approx(expected, abs=1e-6):
                wrong.append(found)
            scorer.rank(QUERY, [OTHER, "More.", "And more."])

    threads = [threading.Thread(target=ask, args=(scorer,)) for scorer in scorers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert cache.bytes == sum(held.prefix.bytes for held in cache._store.values()) <= cache.max_bytes


def test_a_cache_serves_several_models(expected):
    cache = DocumentCache()
    other = in_order(scorer_of(DocumentCache(0), "tiny-qwen2").rank(QUERY, DOCUMENTS))
    for _ in range(2):
        assert in_order(scorer_of(cache).rank(QUERY, DOCUMENTS)) == pytest.approx(expected, abs=1e-6)
        assert in_order(scorer_of(cache, "tiny-qwen2").rank(QUERY, DOCUMENTS)) == pytest.approx(other, abs=1e-6)


def test_numbers_are_checked(tmp_path):
    with pytest.raises(InputError, match="max_bytes"):
        DocumentCache(-1)
    with pytest.raises(InputError, match="folder_bytes"):
        DocumentCache(folder=tmp_path / "cache", folder_bytes=0)
