#!/usr/bin/env python3
"""Build the tiny model that ships with the package: `processors/data/embedded/`.

    python scripts/build_embedded_model.py [DIRECTORY]

A Llama-architecture model with random weights, and a byte-level BPE tokenizer trained on text made up here. It
babbles; it is there so that constrained generation can be tried and tested without a download.

Everything is drawn from one seed in ways that do not depend on library versions or on the processor: the text from
`random.Random.random`, whose sequence Python guarantees, the weights from the raw stream of a bit generator, whose
sequence numpy guarantees, scaled exactly. The same library versions therefore give the same files, byte for byte.
"""

from __future__ import annotations

import json
import random
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from tokenizers import Tokenizer

SEED = 20_240_607
VOCABULARY_SIZE = 3_072
HIDDEN = 128
INTERMEDIATE = 352
LAYERS = 4
HEADS = 4
KV_HEADS = 2
INITIALIZER_RANGE = 0.02
SPECIAL_TOKENS = ("<bos>", "<eos>", "<pad>")
TARGET = Path(__file__).resolve().parent.parent / "processors" / "data" / "embedded"

# One letter sequence, number of at most three digits, or run of signs at a time, with the space before it, and lines
# kept apart: the usual rule of byte-level BPE tokenizers.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)

NOUNS = """time year people way day man thing woman life child world school state family student group country problem
hand part place case week company system program question work government number night point home water room mother
area money story fact month lot right study book eye job word business issue side kind head house service friend
father power hour game line end member law car city community name president team minute idea body information back
parent face others level office door health person art war history party result change morning reason research girl
guy moment air teacher force education letter order paper market river street garden window machine engine language
model token answer price table key value list order user account email address phone date message server network
file folder page image colour shape size weight length height speed distance temperature pressure energy island
mountain forest animal bird fish tree flower fruit bread cheese coffee train station ticket airport weather winter
summer spring autumn museum library hospital kitchen village bridge""".split()
VERBS = """be have do say get make go know take see come think look want give use find tell ask work seem feel try
leave call keep let begin help show hear play run move live believe bring happen write provide sit stand lose pay meet
include continue set learn change lead understand watch follow stop create speak read allow add spend grow open walk
win offer remember love consider appear buy wait serve send expect build stay fall cut reach kill remain suggest
raise pass sell require report decide pull return explain hope develop carry break receive agree support hit produce
eat cover catch draw choose generate compute measure store load print parse match compile check test""".split()
ADJECTIVES = """good new first last long great little own other old right big high different small large next early
young important few public bad same able free true whole real best better sure clear certain human local late hard
major strong possible special open red green blue black white short easy simple empty full ready common recent happy
dark warm cold quick slow quiet loud heavy light deep wide narrow modern ancient fresh clean careful useful strange
final second third double single regular formal exact valid random constant""".split()
SMALL = """the of and to a in that it is was for on are as with his they at be this from have or by one had not but
what all were when we there can an your which their said if do will each about how up out them then she many some so
these would other into has more her two like him see could no make than been its who now my made over did down only
way find use may after very under while between during before because however without again often never always
perhaps together almost already""".split()
NAMES = """Alice Bob Carol David Emma Frank Grace Henry Irene Jack Karen Liam Maria Noah Olivia Paul Quentin Rosa Sam
Tina Ursula Victor Wendy Xavier Yusuf Zoe Anna Ben Chloe Daniel Elena Felix""".split()
PLACES = """London Paris Berlin Madrid Rome Vienna Prague Lisbon Dublin Oslo Helsinki Athens Warsaw Tokyo Beijing
Delhi Cairo Nairobi Toronto Chicago Boston Sydney France Germany Spain Italy Austria Portugal Ireland Norway Finland
Greece Poland Japan China India Egypt Kenya Canada Australia""".split()
FIELDS = """id name title type status value key count total price amount currency email phone address street city
country zip_code date created_at updated_at start end description comment tags items user user_id order_id quantity
active enabled visible score rating level url path file size width height color version language latitude longitude
first_name last_name age is_admin role message code error result data options""".split()
MONTHS = """January February March April May June July August September October November December""".split()
WORLD = (
    "Größe, Straße, Übung, Äpfel und schöne Grüße aus München.",
    "Où est la bibliothèque ? Ça coûte 3,50 € à l'hôtel, déjà payé.",
    "El niño comió piña en España; ¿dónde está mañana?",
    "São Paulo não é só trabalho: coração, informação, opções.",
    "Zażółć gęślą jaźń. Příliš žluťoučký kůň. Győr, İstanbul, Çeşme.",
    "Съешь ещё этих мягких французских булок, да выпей чаю.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. Καλημέρα κόσμε.",
    "שלום עולם. مرحبا بالعالم. नमस्ते दुनिया। สวัสดีชาวโลก",
    "你好,世界。今天天气很好。こんにちは、世界。ありがとう。안녕하세요 세계",
    "😀 😂 ❤️ 👍🏽 🎉 👩‍👩‍👧 → ← ✓ ✗ … — – “quoted” ‘text’ ½ × ÷ ± ≤ ≥ ≠ ∞ 100 °C £20 ¥300",
    "cafe\u0301 nai\u0308ve a\u030a (combining marks) and \u00a0no-break\u2009spaces\u200b.",
)


class Draw:
    """Choices made with `random.Random.random` alone, the one method whose sequence Python keeps."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed).random

    def number(self, low: int, high: int) -> int:
        return low + int(self._random() * (high - low + 1))

    def one(self, options: Sequence[str]) -> str:
        return options[int(self._random() * len(options))]

    def often(self, options: Sequence[str]) -> str:
        """Early options more often than late ones, as words of a language are."""
        return options[int(self._random() * self._random() * len(options))]

    def chance(self, probability: float) -> bool:
        return self._random() < probability


def sentence(draw: Draw) -> str:
    shapes: tuple[tuple[Sequence[str], ...], ...] = (
        (SMALL, ADJECTIVES, NOUNS, VERBS, SMALL, NOUNS),
        (NAMES, VERBS, SMALL, ADJECTIVES, NOUNS, SMALL, PLACES),
        (SMALL, NOUNS, SMALL, SMALL, NOUNS, VERBS, SMALL, ADJECTIVES, NOUNS, SMALL, NOUNS),
        (SMALL, SMALL, VERBS, SMALL, NOUNS),
        (ADJECTIVES, NOUNS, VERBS, ADJECTIVES, NOUNS),
    )
    words = [draw.often(kind) for kind in shapes[draw.number(0, len(shapes) - 1)]]
    for i, word in enumerate(words):
        if draw.chance(0.08):
            words[i] = word + ("s" if draw.chance(0.5) else draw.one(("ed", "ing", "er", "ly", "'s", "n't")))
    text = " ".join(words)
    return text[0].upper() + text[1:] + draw.one((".", ".", ".", ",", "?", "!", ";"))


def paragraph(draw: Draw) -> str:
    return " ".join(sentence(draw) for _ in range(draw.number(2, 5)))


def date(draw: Draw) -> str:
    year, month, day = draw.number(1950, 2049), draw.number(1, 12), draw.number(1, 28)
    hour, minute, second = draw.number(0, 23), draw.number(0, 59), draw.number(0, 59)
    return draw.one(
        (
            f"{year}-{month:02}-{day:02}",
            f"{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z",
            f"{day}/{month}/{year}",
            f"{day} {MONTHS[month - 1]} {year}",
            f"{hour:02}:{minute:02}",
        )
    )


def scalar(draw: Draw) -> Any:
    return (
        lambda: draw.number(0, 9_999),
        lambda: draw.number(-500, 500) / 100,
        lambda: draw.chance(0.5),
        lambda: None,
        lambda: date(draw),
        lambda: draw.one(NAMES),
        lambda: draw.one(PLACES),
        lambda: f"{draw.one(NAMES).lower()}@example.{draw.one(('com', 'org', 'net'))}",
        lambda: f"https://example.org/{draw.one(NOUNS)}/{draw.number(1, 999)}?page={draw.number(1, 9)}",
        lambda: sentence(draw),
        lambda: draw.one(NOUNS),
    )[draw.number(0, 10)]()


def record(draw: Draw, depth: int = 0) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for _ in range(draw.number(2, 5)):
        field = draw.one(FIELDS)
        if depth < 2 and draw.chance(0.15):
            fields[field] = record(draw, depth + 1)
        elif draw.chance(0.15):
            fields[field] = [scalar(draw) for _ in range(draw.number(0, 3))]
        else:
            fields[field] = scalar(draw)
    return fields


def json_text(draw: Draw) -> str:
    indent = 2 if draw.chance(0.3) else None
    separators = (",", ":") if indent is None and draw.chance(0.4) else None
    return json.dumps(record(draw), ensure_ascii=draw.chance(0.2), indent=indent, separators=separators)


def sql(draw: Draw) -> str:
    table, a, b, c = draw.one(NOUNS), draw.one(FIELDS), draw.one(FIELDS), draw.one(FIELDS)
    return draw.one(
        (
            f"SELECT {a}, {b} FROM {table}s WHERE {c} = '{draw.one(NAMES)}' ORDER BY {a} LIMIT {draw.number(1, 99)};",
            f"SELECT COUNT(*), AVG({a}) FROM {table} AS t JOIN {b}s ON t.{b}_id = {b}s.id GROUP BY {c};",
            f"INSERT INTO {table} ({a}, {b}) VALUES ({draw.number(0, 999)}, '{date(draw)}');",
            f"UPDATE {table} SET {a} = {draw.number(0, 99)} WHERE {b} IS NOT NULL AND {c} < {draw.number(0, 999)};",
            f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, {a} TEXT NOT NULL, {b} REAL, {c} DATE);",
            f"DELETE FROM {table} WHERE {a} IN ({draw.number(0, 9)}, {draw.number(10, 99)}) OR {b} LIKE '%{c}%';",
        )
    )


def python(draw: Draw) -> str:
    function, a, b = f"{draw.one(VERBS)}_{draw.one(NOUNS)}", draw.one(FIELDS), draw.one(NOUNS)
    return draw.one(
        (
            (
                f'def {function}({a}: int, {b}: str = "") -> list[str]:\n    if {a} > {draw.number(0, 99)}:\n'
                f"        return [{b}]\n    return []\n"
            ),
            f'for {b} in range(len({a})):\n    print(f"{{{b}}}: {{{a}[{b}]}}")\n    {function}({b})\n',
            (
                f"class {draw.one(NAMES)}:\n    def __init__(self, {a}=None):\n        self.{a} = {a}\n\n"
                f"    def {function}(self):\n        return self.{a} + {draw.number(0, 9)}\n"
            ),
            (
                f'import {draw.one(("os", "sys", "json", "re", "math"))}\n\ntry:\n    {b} = {function}("{a}")\n'
                f"except ValueError as error:\n    raise RuntimeError(str(error)) from None\n"
            ),
            f"{b} = {{key: value for key, value in {a}.items() if value is not None}}\nassert {b} == {{}}, {b}\n",
        )
    )


def corpus(seed: int = SEED) -> Iterator[str]:
    """The training text, one document at a time."""
    draw = Draw(seed)
    kinds: tuple[tuple[Callable[[Draw], str], int], ...] = (
        (paragraph, 6),
        (json_text, 3),
        (sql, 2),
        (python, 2),
        (date, 1),
    )
    for _ in range(400):
        for kind, times in kinds:
            for _ in range(times):
                yield kind(draw)
        text = draw.one(WORLD)  # a piece of it: the whole lines would become tokens
        start = draw.number(0, len(text) - 3)
        yield text[start : start + draw.number(2, 8)]
        # Numbers with every leading group, and the indentation that code needs.
        whole, thousands, cents = draw.number(0, 999), draw.number(0, 99_999), draw.number(0, 99)
        yield f"{whole} {thousands}.{cents} -{draw.number(1, 9)}e{draw.number(1, 9)}"
        yield "\n" + " " * draw.number(1, 16) + draw.one(VERBS)


def build_tokenizer() -> Tokenizer:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", 0)]
    )
    return tokenizer


def model_config() -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 0,
        "dtype": "float32",  # what it is loaded as; the file holds float16 to stay small
        "eos_token_id": 1,
        "head_dim": HIDDEN // HEADS,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "initializer_range": INITIALIZER_RANGE,
        "intermediate_size": INTERMEDIATE,
        "max_position_embeddings": 2_048,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KV_HEADS,
        "pad_token_id": 2,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": True,
        "use_cache": True,
        "vocab_size": VOCABULARY_SIZE,
    }


def tokenizer_config() -> dict[str, Any]:
    return {
        "add_prefix_space": False,
        "bos_token": "<bos>",
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<eos>",
        "model_max_length": 2_048,
        "pad_token": "<pad>",
        "padding_side": "left",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


def build_weights(seed: int = SEED) -> dict[str, NDArray[np.float16]]:
    """Every matrix uniform with standard deviation `INITIALIZER_RANGE`, every norm 1; in the order of their names."""
    kv = HIDDEN // HEADS * KV_HEADS
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY_SIZE, HIDDEN),
        "model.norm.weight": (HIDDEN,),
    }
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        shapes |= {
            prefix + "input_layernorm.weight": (HIDDEN,),
            prefix + "mlp.down_proj.weight": (HIDDEN, INTERMEDIATE),
            prefix + "mlp.gate_proj.weight": (INTERMEDIATE, HIDDEN),
            prefix + "mlp.up_proj.weight": (INTERMEDIATE, HIDDEN),
            prefix + "post_attention_layernorm.weight": (HIDDEN,),
            prefix + "self_attn.k_proj.weight": (kv, HIDDEN),
            prefix + "self_attn.o_proj.weight": (HIDDEN, HIDDEN),
            prefix + "self_attn.q_proj.weight": (HIDDEN, HIDDEN),
            prefix + "self_attn.v_proj.weight": (kv, HIDDEN),
        }
    stream = np.random.PCG64(seed)
    bound = INITIALIZER_RANGE * 3**0.5
    weights = {}
    for name, shape in sorted(shapes.items()):
        if len(shape) == 1:
            weights[name] = np.ones(shape, dtype=np.float16)
            continue
        raw = stream.random_raw(shape[0] * shape[1]) >> np.uint64(11)
        unit = raw.astype(np.float64) * 2.0**-52 - 1.0  # 53 bits: exact, in [-1, 1)
        weights[name] = (unit * bound).astype(np.float16).reshape(shape)
    return weights


def safetensors_bytes(weights: dict[str, NDArray[np.float16]]) -> bytes:
    """The safetensors format: length of the header, JSON header padded to 8 bytes, the tensors one after another."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, array in weights.items():
        header[name] = {"dtype": "F16", "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(a.astype("<f2").tobytes() for a in weights.values())


def write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def build(target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    if tokenizer.get_vocab_size() != VOCABULARY_SIZE:
        raise SystemExit(f"the corpus gives only {tokenizer.get_vocab_size()} tokens, not {VOCABULARY_SIZE}")
    (target / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    write_json(target / "tokenizer_config.json", tokenizer_config())
    write_json(target / "config.json", model_config())
    write_json(
        target / "generation_config.json",
        {"_from_model_config": True, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2},
    )
    (target / "model.safetensors").write_bytes(safetensors_bytes(build_weights()))


if __name__ == "__main__":
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET
    build(directory)
    for file in sorted(directory.iterdir()):
        print(f"{file.stat().st_size:>9,} {file.name}")
