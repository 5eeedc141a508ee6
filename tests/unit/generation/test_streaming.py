"""Pieces of text, joined, are the text, whatever the tokens cut in two."""

from hypothesis import given
from hypothesis import strategies as st

from processors.generation.streaming import TextStream, text_of


@given(st.lists(st.lists(st.binary(max_size=3) | st.sampled_from(["é".encode()[:1], "漢".encode()[:2]]), max_size=3)))
def test_pieces_are_the_text(passes):
    tokens = [token for tokens in passes for token in tokens]
    for cut in (None, 0, 1):
        numbers = iter(range(len(tokens)))
        rows = [[next(numbers) for _ in part] for part in passes]
        stream = TextStream(tokens.__getitem__)
        pieces = []
        for k, row in enumerate(rows):
            is_last = k == len(rows) - 1
            pieces.append(stream.push(row, is_last=is_last, cut=cut if is_last else None))
        last = cut if rows and rows[-1] else None
        assert "".join(pieces) == (text_of(range(len(tokens)), tokens.__getitem__, last) if rows else "")
        assert stream.push([], is_last=True) == "" or not rows


def test_characters_stay_whole():
    tokens = [bytes([byte]) for byte in "aé漢🙂".encode()]
    stream = TextStream(tokens.__getitem__)
    pieces = [stream.push([k]) for k in range(len(tokens))]
    assert [piece for piece in pieces if piece] == ["a", "é", "漢", "🙂"]
    assert stream.push([1], is_last=True) == "\ufffd"
    assert stream.push([0]) == ""  # it is over
