"""One hypothesis about where the tokens of a text of bytes begin and end.

A *boundary* is a place between two tokens: the model's row there, and what the row says of the first byte. A
`LazyTrieState` is a boundary and a beginning of a token after it (a node of the trie). Its weight is the
log-probability that the model writes the tokens up to the boundary and then a token that begins so:

    weight = log P(tokens) + log mass(node) - log mass(root)

where the masses are sums over the tokens below. Another byte in the same token is a step down the trie and asks the
model nothing. Ending the token makes a new boundary, whose row is computed when it is first needed: by whoever needs
it, for all boundaries at once (`materialize`).

Weights do not add up step by step: the first term changes at boundaries only, so no error grows with the text.
"""

from __future__ import annotations

import asyncio
import math
import weakref
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from processors.bytes.byte_lm import EOS, EOT, LazyByteProbs
from processors.bytes.tokenized import StatefulTokenizedLM
from processors.bytes.trie import Children, TokenByteTrie, TrieMode
from processors.lm.causal import CachedCausalLM
from processors.lm.distribution import log_sum_exp

__all__ = ["Boundary", "LazyTrieState", "by_weight", "log_weight", "materialize", "step"]


class Boundary:
    """A place between two tokens; shared by all states after it.

    Attributes:
        lm_state: the tokens before it.   trie: the vocabulary's.
        row: (n_logits,) float32 log-probabilities of the next token, or None before they were computed.
    """

    __slots__ = ("__weakref__", "_after", "_children", "_log_eos", "_log_total", "lm_state", "row", "trie")

    def __init__(self, lm_state: StatefulTokenizedLM, trie: TokenByteTrie) -> None:
        self.lm_state, self.trie = lm_state, trie
        self.row: NDArray[np.float32] | None = None
        self._log_total = self._log_eos = math.nan
        self._children: dict[TrieMode, Children] = {}
        self._after: weakref.WeakValueDictionary[int, Boundary] = weakref.WeakValueDictionary()

    def after(self, token: int) -> Boundary:
        """The boundary after one more token; the same object as long as somebody holds it."""
        found = self._after.get(token)
        if found is None:
            found = self._after[token] = Boundary(self.lm_state << token, self.trie)
        return found

    async def materialize(self) -> None:
        """Ask the model, unless that was done."""
        if self.row is not None:
            return
        self.row = await self.lm_state.logp_next()

    def children(self, mode: TrieMode) -> Children:
        """The first bytes of the next token.  Cost: an exponential for each token, once."""
        if not self._children:
            row = self.known_row()
            first = self.trie.children(self.trie.root, row, TrieMode.WITH_EOS)
            self._log_eos = self.trie.log_eos(row)
            self._log_total = self.trie.log_total(first, row)
            self._children = {
                TrieMode.WITH_EOS: first,
                TrieMode.WITHOUT_EOS: self.trie.with_eos_as_text(first, row),
            }
        return self._children[mode]

    @property
    def log_total(self) -> float:
        """Log of the probability of all that is a token: 0, but for padded embeddings and the like."""
        self.children(TrieMode.WITH_EOS)
        return self._log_total

    @property
    def log_eos(self) -> float:
        """Log-mass of the end of the text."""
        self.children(TrieMode.WITH_EOS)
        return self._log_eos

    @property
    def nbytes(self) -> int:
        """Bytes of the row, which is also the model's as long as that remembers it, and of what was made of it."""
        made = sum(array.nbytes for children in self._children.values() for array in children)
        return made + (0 if self.row is None else self.row.nbytes)

    def known_row(self) -> NDArray[np.float32]:
        """The row.  Raises ValueError if it was not computed."""
        if self.row is None:
            raise ValueError("the model was not asked for this state yet: await state.materialize()")
        return self.row


async def materialize(boundaries: Iterable[Boundary]) -> None:
    """Ask the model for all of these at once."""
    unknown = [boundary for boundary in dict.fromkeys(boundaries) if boundary.row is None]
    if len(unknown) == 1:
        await unknown[0].materialize()
    elif unknown:
        await asyncio.gather(*(boundary.materialize() for boundary in unknown))


class LazyTrieState:
    """A boundary and a beginning of the next token.  Never changes; what it computes is kept.

    Attributes:
        weight: log P(tokens, then a token that begins like this).
        node: where in the trie the token stands.   partial: its bytes so far.
        mode: whether tokens that end a text are ends or text.
        terminated: the text has ended; nothing follows.
    """

    __slots__ = (
        "_children", "_extended", "_logp_next", "base", "boundary", "mode", "node", "partial", "terminated", "weight",
    )  # fmt: skip

    def __init__(
        self,
        boundary: Boundary,
        node: int,
        partial: bytes,
        base: float,
        weight: float,
        mode: TrieMode = TrieMode.WITH_EOS,
        terminated: bool = False,
    ) -> None:
        self.boundary, self.node, self.partial = boundary, node, partial
        self.base, self.weight = base, weight
        self.mode, self.terminated = mode, terminated
        self._children: Children | None = None
        self._extended: list[LazyTrieState] | None = None
        self._logp_next: LazyByteProbs | None = None

    @classmethod
    def initial(
        cls,
        lm: CachedCausalLM | StatefulTokenizedLM,
        trie: TokenByteTrie | None = None,
        mode: TrieMode = TrieMode.WITH_EOS,
    ) -> LazyTrieState:
        """No bytes yet, weight 0.

        Args:
            lm: a model (the text begins after BOS), or the tokens that stand before the text.
        """
        lm_state = lm if isinstance(lm, StatefulTokenizedLM) else StatefulTokenizedLM.initial(lm)
        trie = TokenByteTrie.of(lm_state.model) if trie is None else trie
        return cls.at(Boundary(lm_state, trie), 0.0, mode)

    @classmethod
    def at(cls, boundary: Boundary, weight: float, mode: TrieMode) -> LazyTrieState:
        """At a boundary, with nothing after it."""
        return cls(boundary, boundary.trie.root, b"", weight, weight, mode)

    @property
    def lm_state(self) -> StatefulTokenizedLM:
        return self.boundary.lm_state

    @property
    def trie(self) -> TokenByteTrie:
        return self.boundary.trie

    async def materialize(self) -> LazyTrieState:
        """Ask the model for the row, unless that was done; the state itself."""
        await self.boundary.materialize()
        return self

    @property
    def mass(self) -> NDArray[np.float64]:
        """(n_nodes,) log-masses of all nodes after this boundary.  Made each time; the states themselves need few.

        Raises:
            ValueError: before `materialize`.
        """
        row = self.boundary.known_row()
        with np.errstate(divide="ignore"):
            masses: NDArray[np.float64] = np.log(self.trie.weight_sum(np.exp(row.astype(np.float64)), self.mode))
        return masses - self.boundary.log_total

    def children(self) -> Children:
        """The next bytes of this token, with the log-masses of the nodes."""
        if self.node == self.trie.root:
            return self.boundary.children(self.mode)
        if self._children is None:
            self._children = self.trie.children(self.node, self.boundary.known_row(), self.mode)
        return self._children

    def actions(self) -> dict[int, int]:
        """Byte -> node; at a boundary 257 too."""
        nodes = self.children().nodes
        found = {byte: int(nodes[byte]) for byte in np.flatnonzero(nodes >= 0).tolist()}
        return found | {EOS: self.trie.eos_node} if self.node == self.trie.root else found

    def __lshift__(self, b: int) -> LazyTrieState | None:
        """The state after one more byte of this token, or after the end of the text; None if there is none."""
        if b != EOS and not 0 <= b < 256:
            raise ValueError(f"neither a byte nor 257 (end of text): {b}")
        if self.terminated:
            return None
        boundary, trie = self.boundary, self.trie
        at_root = self.node == trie.root
        if b == EOS:
            if not at_root:
                return None
            weight = self.base + boundary.log_eos - boundary.log_total
            return LazyTrieState(boundary, trie.eos_node, b"", self.base, weight, self.mode, terminated=True)
        if at_root or self._children is not None:
            nodes, masses = self.children()
            node, mass = int(nodes[b]), float(masses[b])
        else:
            node, mass = trie.step(self.node, b, boundary.known_row(), self.mode)
        if mass == -math.inf:
            return None
        weight = self.base + mass - boundary.log_total
        return LazyTrieState(boundary, node, self.partial + bytes([b]), self.base, weight, self.mode)

    def get_all_EOT(self) -> list[tuple[int, int]]:  # noqa: N802 -- the name of genlm-bytes
        """(node, token id) of the tokens that may end here."""
        if self.node in (self.trie.root, self.trie.eos_node):
            return []
        return [(self.node, token) for token in self.trie.ending(self.node, self.mode)]

    def extend_all(self) -> list[LazyTrieState]:
        """The states in which the token ends here, one for each token with these bytes; not materialized.

        They are kept: the model is asked once, however often a byte is tried.
        """
        if self._extended is None:
            ends = self.get_all_EOT()
            row = self.boundary.known_row() if ends else None
            self._extended = []
            for _, token in ends:
                logp = float(row[token]) if row is not None else -math.inf
                if logp > -math.inf:
                    weight = self.base + logp - self.boundary.log_total
                    self._extended.append(LazyTrieState.at(self.boundary.after(token), weight, self.mode))
        return self._extended

    @property
    def logp_next(self) -> LazyByteProbs:
        """What comes next in this token: bytes, its end (EOT), and at a boundary the end of the text (EOS)."""
        if self._logp_next is None:
            ps = np.full(258, -np.inf)
            if not self.terminated:
                row, offset = self.boundary.known_row(), self.weight - self.base + self.boundary.log_total
                ps[:256] = self.children().masses - offset
                ends = [token for _, token in self.get_all_EOT()]
                ps[EOT] = log_sum_exp(row[ends].astype(np.float64)) - offset if ends else -np.inf
                ps[EOS] = self.boundary.log_eos - offset if self.node == self.trie.root else -np.inf
            self._logp_next = LazyByteProbs(ps)
        return self._logp_next

    def with_mode(self, mode: TrieMode) -> LazyTrieState | None:
        """The same place in another mode; None if no token of that mode begins like this."""
        if mode == self.mode or self.terminated:
            return self
        if self.node == self.trie.root:
            return LazyTrieState.at(self.boundary, self.weight, mode)
        mass = self.trie.log_mass(self.node, self.boundary.known_row(), mode)
        if mass == -math.inf:
            return None
        weight = self.base + mass - self.boundary.log_total
        return LazyTrieState(self.boundary, self.node, self.partial, self.base, weight, mode)

    def __repr__(self) -> str:
        partial = self.partial.decode("utf-8", "backslashreplace").replace(" ", "␣")
        return f"{self.weight:.3f}: {self.lm_state!r}|{'<EOS>' if self.terminated else partial}"


def by_weight(states: Sequence[LazyTrieState]) -> list[LazyTrieState]:
    """Best first; equal ones stay in order."""
    return sorted(states, key=lambda state: -state.weight)


def log_weight(states: Iterable[LazyTrieState]) -> float:
    """The weight of all of them together."""
    return log_sum_exp(np.array([state.weight for state in states], dtype=np.float64))


def step(states: Iterable[LazyTrieState], b: int) -> list[LazyTrieState]:
    """All after one more byte, those that can take it."""
    return [new for state in states if (new := state << b) is not None and new.weight > -math.inf]
