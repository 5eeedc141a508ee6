"""Fast-forward: tokens that a guide forces go through the model together, in one pass.

**Tokens.** Where the mask leaves a single token, it comes with probability one: leaving the model out of it changes
neither the distribution nor, since random numbers are indexed by position, any draw that follows.

**Text** (an option). Often the next *text* is forced although its tokens are not: after ``{"na`` comes ``me": ``,
which a vocabulary spells in many ways, each with a probability of its own. Writing it as the tokenizer would saves
more passes, and it *changes the distribution*: of all spellings one is chosen without asking the model. The last token
of such a text is left to the model, since it may run on into what is free.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from outlines_core.types import TokenAutomaton

__all__ = ["canonical_tokens", "pass_width"]


def pass_width(chains: Sequence[int], *, equal: bool) -> int:
    """How many tokens the next pass takes of each row, at most.

    Args:
        chains: for each live row the tokens forced after the one that was just drawn.
        equal: must all rows be fed equally many?

    Returns:
        1 + the number of forced tokens: the largest for which three quarters of the pass are tokens, not padding.

    >>> pass_width([3, 3, 0], equal=False), pass_width([3, 0, 0, 0], equal=False), pass_width([3, 1], equal=True)
    (4, 1, 2)
    """
    if equal or not chains:
        return 1 + min(chains, default=0)
    widths = (w for w in range(1 + max(chains), 0, -1) if 4 * sum(min(1 + c, w) for c in chains) >= 3 * w * len(chains))
    return next(widths)


def canonical_tokens(
    automaton: TokenAutomaton, state: int, encode: Callable[[str], Sequence[int]], token_bytes: Callable[[int], bytes]
) -> list[int]:
    """The forced text of a state as the tokenizer spells it, without its last token.

    Args:
        encode: text -> ids, no special tokens added.   token_bytes: as `Vocabulary.token_bytes`.

    Returns:
        Tokens that the automaton accepts from `state`; [] where less than two are forced, or where the tokenizer spells
        the text differently at the start of a text than inside of one.
    """
    forced = automaton.forced_bytes(state)
    text = forced.decode("utf-8", "ignore")  # a character that is cut off is left to the model
    ids = [int(i) for i in encode(text)][:-1] if text else []
    if not forced.startswith(b"".join(map(token_bytes, ids))):
        return []
    n, _ = automaton.accept_tokens(state, ids)
    return ids[:n]
