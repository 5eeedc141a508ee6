"""The acceptance of `benchmarks/generate_regex.py` in small: every byte a token, a few patterns, all modes.

What the benchmark's oracles say is tested, too: a benchmark that cannot find anything wrong proves nothing.
"""

import pytest
import torch

import outlines_core as oc
from benchmarks.generate_regex import (
    MODES,
    OWN,
    Setting,
    completion,
    decode,
    judge,
    second_opinion,
    subjects_of,
    tiny_llama,
    twin,
    whole_characters,
)

PAD, EOS = 256, 257
PIECES = ("ab", "the", "00", ":0", "},", "\n#", "/*", "*/", "foo", "é", "ß", "st", "😀", "👍🏽", "end.")
VOCABULARY = oc.Vocabulary(
    EOS,
    {
        **{bytes([i]): [i] for i in range(256)},
        **{piece.encode(): [258 + k] for k, piece in enumerate(PIECES)},
    },
    special_tokens={"<pad>": PAD},
)
PATTERNS = (
    r"(?!.*(?:foo|bar))[a-z]{3,12}",
    r"(?i)straße|ΣΊΣ|ﬁn",
    r"[😀-🙏]{1,2}(?:👍🏽)?",
    r"(?:[0-9a-f]{2}:){3}[0-9a-f]{2}",
    r"x*+y|(?>a+|ab)b?c",
    r"(?m)^\w{1,3}$\n^#{1,3} \b[a-z]{2,4}$",
    r"a*",
)


@pytest.fixture(scope="module")
def setting():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    models = [tiny_llama(VOCABULARY, PAD, seed, layers=1, hidden=32) for seed in (0, 1)]
    prompts = [list(range(65, 65 + n)) for n in (4, 1, 9, 2, 7, 3, 5, 8)]
    yield Setting(VOCABULARY, *models, PAD, prompts, None, list)
    torch.set_num_threads(before)


def subject(pattern):
    [found] = subjects_of([pattern], VOCABULARY, {}, own=True)
    return found


@pytest.mark.parametrize("closing", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_every_output_obeys(setting, mode, closing):
    for turn, pattern in enumerate(PATTERNS):
        verdicts = decode(setting, subject(pattern), mode, closing=closing, turn=turn, seed=turn)
        assert len(verdicts) == {"sampling": 2, "batch": 8}.get(mode, 1)
        for verdict in verdicts:
            assert not verdict.wrong, (pattern, verdict)
            assert verdict.matches or (verdict.viable and not closing)
            assert verdict.second is not False


class TestTheOracles:
    def judged(self, pattern, text, **kwargs):
        ids = [i for c in text for i in (c if isinstance(c, list) else c.encode())]
        return judge(subject(pattern), ids, **{"closing": False, "decoded": None, **kwargs})

    def test_a_finished_text_must_match(self):
        assert not self.judged("a+b", ["aab", [EOS, PAD, PAD]]).wrong
        assert "no match" in self.judged("a+b", ["aa", [EOS]]).wrong
        assert self.judged("a+b", ["aab", [EOS, 65]]).finished

    def test_an_unfinished_text_must_be_viable(self):
        assert self.judged("a+b", ["aa"]).viable
        assert self.judged("a+b", ["ba"]).wrong
        assert self.judged("(?s).", [[0xE2, 0x82]]).viable
        assert self.judged("(?!aa)a[ab]", ["aa"]).wrong

    def test_a_closed_text_must_match(self):
        assert not self.judged("a+b?", ["aa"], closing=True).wrong
        assert "closed" in self.judged("a+b", ["aa"], closing=True).wrong

    def test_what_the_tokenizer_decodes(self):
        assert not self.judged("a+", ["aa"], decoded=lambda ids: "a" * len(ids)).wrong
        assert "decodes" in self.judged("a+", ["aa"], decoded=lambda _: "ab").wrong

    @pytest.mark.parametrize(
        "pattern",
        # `regex` takes seconds to compile what `re` means by a word character where it stands for \b
        [pytest.param(p, marks=pytest.mark.slow) if r"\b" in p or "(?m)" in p else p for p in OWN],
    )
    def test_a_completion_is_one(self, pattern):
        one = subject(pattern)
        text = completion(one.automaton, one.automaton.initial_state)
        assert text is not None
        assert not self.judged(pattern, [list(text), [EOS]]).wrong
        for k in range(len(text)):
            assert self.judged(pattern, [list(text[:k])]).viable

    @pytest.mark.parametrize(
        ("pattern", "prefixes", "others"),
        [
            (r"\w+-\d", ["é", "é-", "éé-٣"], ["-", "é-x"]),
            (r"[\W\d]+x", ["-1", "-"], ["e"]),
            (r"\b\w+\b!", ["ab", "ab!"], ["!"]),
            (r"a\Bb[]\d]", ["a", "ab", "ab]"], ["b", "abx"]),
            (r"\s\S", ["\x1c", "\x1cx"], ["x"]),
        ],
    )
    def test_the_second_opinion(self, pattern, prefixes, others):
        assert all(second_opinion(pattern, text.encode()) for text in prefixes)
        assert not any(second_opinion(pattern, text.encode()) for text in others)

    def test_no_second_opinion_on_case_folding(self):
        assert twin("(?i)k") is None
        assert twin("x(?s:y)") is not None

    def test_whole_characters(self):
        assert whole_characters("aé".encode()[:-1]) == "a"
        assert whole_characters("a😀".encode()) == "a😀"
        with pytest.raises(UnicodeDecodeError):
            whole_characters(b"\xffa")
