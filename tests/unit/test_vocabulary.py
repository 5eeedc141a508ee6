"""Vocabulary, its snapshots and fingerprints; the trie against brute force; mask layout; the stores."""

from __future__ import annotations

import copy
import hashlib
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import outlines_core as oc
from outlines_core.bitmask import allocate_bitmask, checked_words, n_words, pack_ids, unpack_ids
from outlines_core.cache import DiskStore, LruCache, content_key, default_directory
from outlines_core.trie import TokenTrie
from outlines_core.vocabulary import TokenTable, Vocabulary


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OUTLINES_CACHE_DIR", str(tmp_path / "cache"))


@st.composite
def vocabularies(draw):
    """Random vocabularies with duplicates, holes, empty tokens, special tokens and several EOS ids."""
    tokens = draw(st.lists(st.one_of(st.binary(max_size=4), st.text("ab", max_size=5).map(str.encode)), max_size=24))
    ids = draw(st.permutations(range(40)))
    mapping: dict[bytes, list[int]] = {}
    for token, i in zip(tokens, ids, strict=False):
        mapping.setdefault(token, []).append(i)
    rest = ids[len(tokens) :]
    n_eos = draw(st.integers(1, 3))
    special = {f"<{i}>": i for i in rest[n_eos : n_eos + draw(st.integers(0, 4))]}
    size = draw(st.sampled_from([None, 40, 64, 77]))
    return Vocabulary(rest[:n_eos], mapping, special_tokens=special, size=size)


def text_by_id(vocabulary: Vocabulary) -> dict[int, bytes]:
    return {i: token for token, ids in vocabulary.items() if token for i in ids}


def walk(trie: TokenTrie) -> list[tuple[bytes, int]]:
    """Every node's path and token, by a plain depth-first walk."""
    out, path = [], b""
    for info, token in zip(trie.info.tolist(), trie.token.tolist(), strict=True):
        depth = info >> 8
        path = path[: depth - 1] + bytes([info & 255])
        assert len(path) == depth
        out.append((path, token))
    return out


def same(a, b) -> bool:
    """Whether two tries, or fields of them, are equal."""
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return np.array_equal(a, b)


# -- the table and the trie --------------------------------------------------------------------------------------------


@given(vocabularies())
def test_the_table_holds_each_token(vocabulary):
    texts, table = text_by_id(vocabulary), vocabulary.table
    assert [table.token(i) for i in range(table.size)] == [texts.get(i, b"") for i in range(table.size)]
    assert [vocabulary.token_bytes(i) for i in (-1, table.size, 10**12)] == [b""] * 3
    assert table.eos_ids.tolist() == sorted(vocabulary.eos_token_ids)
    assert table.size == vocabulary.size == (vocabulary._explicit_size or 1 + max(known_ids(vocabulary)))
    assert table.n_words == n_words(table.size)


def known_ids(vocabulary: Vocabulary) -> set[int]:
    ids = {i for _, token_ids in vocabulary.items() for i in token_ids}
    return ids | set(vocabulary.eos_token_ids) | set(vocabulary.special_tokens.values())


@given(vocabularies())
def test_the_trie_is_the_set_of_prefixes(vocabulary):
    trie, texts = TokenTrie.build(vocabulary.table), text_by_id(vocabulary)
    nodes = walk(trie)
    paths = [path for path, _ in nodes]
    prefixes = {token[:k] for token in texts.values() for k in range(1, len(token) + 1)}
    assert paths == sorted(prefixes)  # depth first, children in byte order
    for at, (path, token) in enumerate(nodes):
        after = at + 1
        while after < len(paths) and paths[after].startswith(path):
            after += 1
        assert trie.end[at] == after
        assert token == -1 or texts[token] == path
    spelled = {token for _, token in nodes if token >= 0}
    for kept, other in trie.duplicates.tolist():
        assert kept in spelled
        assert other not in spelled
        assert texts[kept] == texts[other]
        spelled.add(other)
    assert spelled == set(texts)
    assert trie.max_depth == max(map(len, texts.values()), default=0)
    assert not any(array.flags.writeable for array in (trie.info, trie.end, trie.token, trie.duplicates))


def test_the_kernel_equals_its_python_source():
    from outlines_core.kernels.trie import build_trie

    tokens = sorted([b"a", b"ab", b"ab", b"abc", b"b", b"\xff\x00"])
    starts = np.cumsum([0, *map(len, tokens)])
    arguments = np.frombuffer(b"".join(tokens), dtype=np.uint8), starts, np.arange(6, dtype=np.int32)
    plain = getattr(build_trie, "py_func", build_trie)
    for compiled, interpreted in zip(build_trie(*arguments), plain(*arguments), strict=True):
        assert compiled.dtype == interpreted.dtype
        assert compiled.tolist() == interpreted.tolist()


def test_an_empty_trie():
    trie = TokenTrie.build(Vocabulary(0, {}).table)
    assert (len(trie.info), trie.duplicates.shape, trie.max_depth) == (0, (0, 2), 0)


def test_a_large_trie_comes_from_the_store_the_second_time(tmp_path):
    tokens = {f"{i:x}": [i] for i in range(5000)}
    built = Vocabulary(5000, tokens).table.trie
    files = list((tmp_path / "cache").glob("*/*.bin"))
    assert len(files) == 1
    assert same(built, Vocabulary(5000, tokens).table.trie)
    files[0].write_bytes(files[0].read_bytes()[:-1])
    assert same(built, Vocabulary(5000, tokens).table.trie)


def test_the_store_may_be_unwritable(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OUTLINES_CACHE_DIR", str(tmp_path / "file" / "below"))
    assert Vocabulary(5000, {f"{i:x}": [i] for i in range(5000)}).table.trie.max_depth == 4


# -- the fingerprint ---------------------------------------------------------------------------------------------------


@given(vocabularies())
def test_copies_are_equal(vocabulary):
    for twin in (
        pickle.loads(pickle.dumps(vocabulary)),
        Vocabulary.from_binary(vocabulary.to_binary()),
        copy.copy(vocabulary),
        copy.deepcopy(vocabulary),
        vocabulary.snapshot(),
    ):
        assert twin == vocabulary
        assert twin.fingerprint == vocabulary.fingerprint
        assert (twin.size, len(twin), twin.special_tokens) == (
            vocabulary.size,
            len(vocabulary),
            vocabulary.special_tokens,
        )


@given(vocabularies())
def test_the_fingerprint_does_not_depend_on_the_order_of_insertion(vocabulary):
    twin = Vocabulary(
        vocabulary.eos_token_ids[::-1],
        {token: list(ids[::-1]) for token, ids in reversed(list(vocabulary.items()))},
        special_tokens=dict(reversed(vocabulary.special_tokens.items())),
        size=vocabulary.size,
    )
    assert twin.fingerprint == vocabulary.fingerprint


@pytest.mark.parametrize(
    "other",
    [
        Vocabulary(3, {"a": [0], "b": [1]}, size=4),
        Vocabulary(3, {"a": [1], "bc": [0]}),
        Vocabulary(3, {"ab": [0], "c": [1]}),
        Vocabulary([2, 3], {"a": [0], "bc": [1]}),
        Vocabulary(3, {"a": [0], "bc": [1]}, size=5),
        Vocabulary(3, {"a": [0], "bc": [1, 2]}),
        Vocabulary(4, {"a": [0], "bc": [1]}),
        Vocabulary(3, {"a": [0], "bc": [1]}, special_tokens={"x": 0}),
    ],
)
def test_the_fingerprint_depends_on_what_masks_depend_on(other):
    assert other.fingerprint != Vocabulary(3, {"a": [0], "bc": [1]}).fingerprint


def test_the_fingerprint_is_the_same_in_every_process():
    code = (
        "import outlines_core as oc, pickle, sys\n"
        "v = oc.Vocabulary([9, 7], {b'\\xff': [3], b'a': [0, 5], 'ü'.encode(): [2]}, special_tokens={'<s>': 1})\n"
        "print(v.fingerprint)\n"
        "print(pickle.loads(bytes.fromhex(sys.argv[1])).fingerprint)\n"
    )
    vocabulary = Vocabulary([9, 7], {b"\xff": [3], b"a": [0, 5], "ü".encode(): [2]}, special_tokens={"<s>": 1})
    root = Path(__file__).parents[2]
    for seed in ("0", "1"):
        run = subprocess.run(
            [sys.executable, "-c", code, pickle.dumps(vocabulary).hex()],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            check=True,
            capture_output=True,
            text=True,
        )
        assert run.stdout.split() == [vocabulary.fingerprint] * 2


def test_the_fingerprint_is_pinned():
    """A change here orphans every cache on disk: raise the version in the digest along with it."""
    pinned = "a99a7a935a852ca672033a9f67fac308059f0e4410ab274837c9cb2209d7e6e9"
    assert Vocabulary(3, {"a": [0], "b": [1], "ab": [2]}).fingerprint == pinned


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(vocabularies(), st.data())
def test_damaged_binaries_are_refused_by_name(vocabulary, data):
    binary = bytearray(vocabulary.to_binary())
    kind = data.draw(st.sampled_from(["cut", "flip", "noise"]))
    if kind == "cut":
        binary = binary[: data.draw(st.integers(0, len(binary) - 1))]
    elif kind == "flip":
        for at in data.draw(st.lists(st.integers(0, len(binary) - 1), min_size=1, max_size=3, unique=True)):
            binary[at] ^= data.draw(st.integers(1, 255))
    else:
        binary = bytearray(data.draw(st.binary(max_size=200)))
    with pytest.raises(oc.CacheFormatError, match="Deserialization of Vocabulary failed"):
        Vocabulary.from_binary(bytes(binary))


# -- edits -------------------------------------------------------------------------------------------------------------


@given(vocabularies(), st.lists(st.tuples(st.sampled_from(["insert", "remove"]), st.text("ab", max_size=3))))
def test_edits_do_not_reach_snapshots(vocabulary, edits):
    texts = text_by_id(vocabulary)
    snapshots = [(vocabulary.snapshot(), dict(vocabulary.items()), vocabulary.fingerprint)]
    next_id = 100
    vocabulary = Vocabulary(
        vocabulary.eos_token_ids, dict(vocabulary.items()), special_tokens=vocabulary.special_tokens
    )
    for kind, token in edits:
        if kind == "insert":
            vocabulary.insert(token, next_id)
            if token:
                texts[next_id] = token.encode()
            next_id += 1
        else:
            vocabulary.remove(token)
            texts = {i: text for i, text in texts.items() if text != token.encode()}
        assert text_by_id(vocabulary) == texts
        assert {i: vocabulary.token_bytes(i) for i in texts} == texts
        snapshots.append((vocabulary.snapshot(), dict(vocabulary.items()), vocabulary.fingerprint))
    for snapshot, items, fingerprint in snapshots:
        assert dict(snapshot.items()) == items
        assert snapshot.fingerprint == fingerprint


def test_a_snapshot_can_be_edited_without_reaching_the_original():
    vocabulary = Vocabulary(3, {"a": [0]})
    snapshot = vocabulary.snapshot()
    assert snapshot.table is vocabulary.table
    snapshot.insert("a", 1)
    assert (vocabulary.get("a"), snapshot.get("a")) == ([0], [0, 1])
    vocabulary.remove("a")
    assert (vocabulary.get("a"), snapshot.get("a")) == (None, [0, 1])


def test_inserting_the_same_id_twice_changes_nothing():
    vocabulary = Vocabulary(3, {"a": [0, 0]})
    vocabulary.insert(b"a", 0)
    assert vocabulary.table.token(0) == b"a"
    assert vocabulary.token_bytes(1) == b""


def test_an_id_for_two_tokens_is_refused():
    with pytest.raises(oc.VocabularyError, match="stands for both b'a' and b'b'"):
        Vocabulary(3, {"a": [0], "b": [0]})
    vocabulary = Vocabulary(3, {"a": [0]})
    vocabulary.insert("b", 0)
    with pytest.raises(oc.VocabularyError, match="stands for both b'a' and b'b'"):
        vocabulary.table  # noqa: B018
    vocabulary.remove("a")
    assert vocabulary.token_bytes(0) == b"b"


def test_inserting_beyond_the_size_is_refused():
    vocabulary = Vocabulary(3, {"a": [0]}, size=8)
    vocabulary.insert("b", 8)
    with pytest.raises(oc.VocabularyError, match="size=8 is too small: the largest id is 8"):
        vocabulary.snapshot()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Vocabulary(0, {"a": [0]}), ValueError, "EOS token should not be inserted"),
        (lambda: Vocabulary(0, {}).insert("a", 0), ValueError, "EOS token should not be inserted"),
        (lambda: Vocabulary(0, {"a": [-1]}), oc.VocabularyError, "out of range"),
        (lambda: Vocabulary(0, {"a": [2**31]}), oc.VocabularyError, "out of range"),
        (lambda: Vocabulary(-1, {}), oc.VocabularyError, "out of range"),
        (lambda: Vocabulary(0, {}, special_tokens={"x": -1}), oc.VocabularyError, "out of range"),
        (lambda: Vocabulary(0, {}).insert("a", -1), oc.VocabularyError, "out of range"),
        (lambda: Vocabulary(9, {}, size=9), oc.VocabularyError, "largest id is 9"),
        (lambda: Vocabulary([], {}), TypeError, "non-empty"),
        (lambda: Vocabulary("0", {}), TypeError, "eos_token_id must be"),
        (lambda: Vocabulary(True, {}), TypeError, "eos_token_id must be"),
        (lambda: Vocabulary(0, []), TypeError, "Expected a dict"),
        (lambda: Vocabulary(0, {"a": [1], b"b": [2]}), TypeError, "wrong types"),
        (lambda: Vocabulary(0, {1: [1]}), TypeError, "wrong types"),
        (lambda: Vocabulary(0, {"a": 1}), TypeError, "wrong types"),
        (lambda: Vocabulary(0, {"a": ["1"]}), TypeError, "wrong types"),
        (lambda: Vocabulary(0, {"a": "1"}), TypeError, "wrong types"),
        (lambda: Vocabulary(0, {"a": [1.0]}), TypeError, "wrong types"),
        (lambda: Vocabulary(0, {"a": [True]}), TypeError, "wrong types"),
        (lambda: Vocabulary(0, {}).get(1), TypeError, "str or bytes"),
    ],
)
def test_wrong_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_numpy_ids():
    vocabulary = Vocabulary(np.int64(3), {"a": np.array([0, 1]), "b": (np.int32(2),)})
    assert vocabulary == Vocabulary(3, {"a": [0, 1], "b": [2]})
    assert all(type(i) is int for _, ids in vocabulary.items() for i in ids)


def test_special_tokens_and_empty_tokens_are_never_text():
    vocabulary = Vocabulary(3, {"a": [0], "": [1], "<s>": [2]}, special_tokens={"<s>": 2})
    assert [vocabulary.token_bytes(i) for i in range(4)] == [b"a", b"", b"", b""]
    assert vocabulary.table.trie.token.tolist() == [0]


def test_lone_surrogates_of_an_older_vocabulary_survive():
    vocabulary = Vocabulary(1, {"\ud800": [0]})
    assert vocabulary.token_bytes(0) == b"\xed\xa0\x80"


# -- masks -------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 200).flatmap(lambda size: st.tuples(st.just(size), st.sets(st.integers(0, max(size - 1, 0))))))
def test_packing_is_the_bit_layout(case):
    size, ids = case
    ids = {i for i in ids if i < size}
    mask = pack_ids(ids, size)
    assert mask.dtype == np.uint32
    assert mask.shape == (n_words(size),)
    assert {t for t in range(32 * len(mask)) if mask[t >> 5] >> np.uint32(t & 31) & 1} == ids
    assert unpack_ids(mask).tolist() == sorted(ids)
    assert unpack_ids(mask.view(np.int32)).tolist() == sorted(ids)


def test_allocate_bitmask():
    assert allocate_bitmask(3, 33).shape == (3, 2)
    mask = allocate_bitmask(2, Vocabulary(64, {}))
    assert (mask.shape, mask.dtype, mask.any()) == ((2, 3), np.int32, False)
    with pytest.raises(ValueError, match="negative"):
        allocate_bitmask(-1, 3)


@pytest.mark.parametrize(
    "out",
    [
        np.zeros(4, dtype=np.int64),
        np.zeros(1, dtype=np.int32),
        np.zeros((1, 4), dtype=np.int32),
        np.zeros(8, dtype=np.int32)[::2],
        [0, 0, 0, 0],
        np.frombuffer(bytes(16), dtype=np.int32),
    ],
)
def test_a_mask_that_cannot_be_written(out):
    with pytest.raises(ValueError, match="mask"):
        checked_words(out, 2)


def test_checked_words_shares_memory():
    out = np.zeros(4, dtype=np.int32)
    checked_words(out, 3)[0] = 0xFFFFFFFF
    assert out[0] == -1


# -- stores ------------------------------------------------------------------------------------------------------------

KEY = content_key("key")


def arrays_of(seed: int) -> dict[str, np.ndarray]:
    return {"a": np.full(1000, seed, dtype=np.int32), "b": np.full((2, 3), seed, dtype=np.float64)}


def test_what_is_stored_comes_back_read_only(tmp_path):
    store = DiskStore(tmp_path)
    assert store.get(KEY) is None
    assert store.put(KEY, arrays_of(7))
    found = store.get(KEY)
    assert found.keys() == {"a", "b"}
    for name, array in arrays_of(7).items():
        assert np.array_equal(found[name], array)
        assert found[name].dtype == array.dtype
        assert not found[name].flags.writeable
    assert not list(tmp_path.glob("**/*.tmp"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_a_miss_and_is_removed(tmp_path, data):
    store = DiskStore(tmp_path)
    store.put(KEY, arrays_of(7))
    (path,) = tmp_path.glob("*/*.bin")
    raw = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    else:
        raw = raw[: data.draw(st.integers(0, len(raw) - 1))]
    path.write_bytes(raw)
    assert store.get(KEY) is None
    assert not path.exists()
    assert store.put(KEY, arrays_of(8))
    assert store.get(KEY)["a"][0] == 8


def test_pickles_are_never_loaded(tmp_path):
    store = DiskStore(tmp_path)
    store.put(KEY, {"a": np.zeros(1)})
    (path,) = tmp_path.glob("*/*.bin")
    raw = path.read_bytes()
    head = len(raw) - len(raw[raw.index(b"PK") :]) - 32
    payload = pickle.dumps(np.array([Path()], dtype=object))
    path.write_bytes(raw[:head] + hashlib.sha256(payload).digest() + payload)
    assert store.get(KEY) is None


def _write(directory: str, seed: int, rounds: int) -> None:
    store = DiskStore(Path(directory))
    for _ in range(rounds):
        store.put(KEY, arrays_of(seed))
        found = store.get(KEY)
        if found is not None:
            assert set(found["a"].tolist()) == {int(found["b"][0, 0])}


def test_concurrent_processes_see_nothing_or_all_of_a_file(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write, args=(str(tmp_path), seed, 60)) for seed in range(3)]
    for worker in workers:
        worker.start()
    store, seen = DiskStore(tmp_path), 0
    while any(worker.is_alive() for worker in workers):
        found = store.get(KEY)
        if found is not None:
            assert set(found["a"].tolist()) == {int(found["b"][0, 0])}
            seen += 1
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert seen
    assert store.get(KEY) is not None
    assert not list(tmp_path.glob("**/*.tmp"))


def test_the_least_recently_used_files_go(tmp_path):
    store = DiskStore(tmp_path, max_bytes=15_000)
    keys = [content_key(i) for i in range(4)]
    for age, key in enumerate(keys):
        store.put(key, arrays_of(age))
        path = next(tmp_path.glob(f"*/{key}.bin"))
        os.utime(path, (1000 + age, 1000 + age))
        if age == 1:
            store.get(keys[0])  # used just now
    assert store.get(keys[0]) is not None
    assert store.get(keys[1]) is None
    assert sum(path.stat().st_size for path in tmp_path.glob("*/*.bin")) <= 15_000


@pytest.mark.parametrize("variable", ["OUTLINES_CACHE_DIR", "XDG_CACHE_HOME", "HOME"])
def test_where_the_cache_is(monkeypatch, variable):
    for name in ("OUTLINES_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "/somewhere")
    assert str(default_directory()).startswith("/somewhere")


@given(st.lists(st.lists(st.one_of(st.text(max_size=3), st.binary(max_size=3), st.integers(0, 20)), max_size=3)))
def test_keys_are_equal_only_for_equal_parts(lists):
    keys = {content_key(*parts) for parts in lists}
    assert len(keys) == len({tuple((type(part), part) for part in parts) for parts in lists})


def test_a_bounded_cache():
    cache: LruCache[bytes] = LruCache(10, len)
    cache.put("a", b"aaaa")
    cache.put("b", b"bbbb")
    assert cache.get("a") == b"aaaa"
    cache.put("c", b"cccc")
    assert (cache.get("b"), cache.get("a"), cache.nbytes) == (None, b"aaaa", 8)
    cache.put("a", b"a")
    assert (len(cache), cache.nbytes) == (2, 5)
    cache.put("d", b"d" * 11)  # one value that is too large stays until the next
    assert (len(cache), cache.nbytes) == (1, 11)
    cache.clear()
    assert (len(cache), cache.nbytes) == (0, 0)


def test_a_bounded_cache_under_threads():
    cache: LruCache[bytes] = LruCache(1000, len)

    def work(seed: int) -> None:
        for i in range(2000):
            cache.put((seed * i) % 37, b"x" * (i % 50))
            cache.get(i % 37)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (3, 5, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.nbytes == sum(size for _, size in cache._items.values()) <= 1000


def test_tables_are_built_alike_from_lists_and_tuples():
    a, b = (TokenTable({b"a": kind([0, 1])}, [2], [], 3) for kind in (list, tuple))
    assert a.fingerprint == b.fingerprint
