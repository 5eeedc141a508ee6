"""Random Python regexes over a few letters, for the terminals of random grammars.

They are short, and such that order and greed matter: alternatives that are prefixes of each other, lazy and counted
repeats, look-arounds that see past a match, groups, flags, classes.
"""

from __future__ import annotations

import random
import re

__all__ = ["PatternMaker"]


class PatternMaker:
    """Patterns over `letters`, as they stand between the slashes of a Lark terminal."""

    def __init__(self, rng: random.Random, letters: str) -> None:
        self.rng, self.letters = rng, letters
        self.looks = rng.random() < 0.3
        self.groups = 0
        self.features: set[str] = set()

    def maybe(self, chance: float) -> bool:
        return self.rng.random() < chance

    def letter(self) -> str:
        c = self.rng.choice(self.letters)
        if self.maybe(0.03):
            return f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}"
        return {"\n": "\\n", "/": "\\/"}.get(c) or re.escape(c).replace("\\ ", " ").replace("\\-", "-")

    def of_class(self) -> str:
        inside = "".join(dict.fromkeys(self.rng.choices(self.letters, k=self.rng.randint(1, 2))))
        escaped = "".join({"\n": "\\n", "/": "\\/"}.get(c) or ("\\" + c if c in '\\]^-"' else c) for c in inside)
        if self.maybe(0.2):
            self.features.add("negated class")
            return f"[^{escaped}]"
        return f"[{escaped}]"

    def atom(self) -> str:
        pick = self.rng.random()
        if pick < 0.72:
            return self.letter()
        if pick < 0.9:
            return self.of_class()
        if pick < 0.95:
            return "."
        return self.rng.choice([r"\w", r"\W", r"\s", r"\S", r"\d", r"\D"])

    def zero_width(self) -> str:
        rng = self.rng
        self.features.add("look-around")
        pick = rng.random()
        if pick < 0.25:
            return f"(?={self.of_look()})"
        if pick < 0.5:
            return f"(?!{self.of_look()})"
        if pick < 0.6:
            return f"(?<={self.of_width()})"
        if pick < 0.72:
            return f"(?<!{self.of_width()})"
        if pick < 0.86:
            return rng.choice([r"\b", r"\b", r"\B"])
        return rng.choice(["^", "$", "$", r"\A", r"\Z", "(?m:^)", "(?m:$)"])

    def of_look(self) -> str:
        looks, self.looks = self.looks, self.maybe(0.3)
        text = self.pattern(2) if self.maybe(0.7) else self.letter() + self.rng.choice(["", "$", "+", ".", r"\b"])
        self.looks = looks
        return text

    def of_width(self) -> str:
        """What a look-behind may hold: one width."""
        pick = self.rng.random()
        if pick < 0.15:
            return f"{self.letter()}|{self.letter()}"
        if pick < 0.4:
            return self.letter() + self.letter()
        return self.rng.choice([self.letter(), self.letter(), self.of_class(), self.of_class(), "^"])

    def group(self, inside: str) -> str:
        pick = self.rng.random()
        if pick < 0.86:
            return f"(?:{inside})"
        if pick < 0.95:
            self.features.add("capturing group")
            return f"({inside})"
        if pick < 0.97:
            self.groups += 1
            return f"(?P<g{self.groups}>{inside})"
        if pick < 0.985:
            self.features.add("inline flags")
            return f"({self.rng.choice(['?i:', '?s:', '?m:', '?-i:', '?a:'])}{inside})"
        self.features.add("atomic group")
        return f"(?>{inside})"

    def count(self) -> str:
        self.features.add("quantifier")
        greedy = self.rng.choice(["*", "+", "+", "?", "{2}", "{1,2}", "{0,2}", "{2,}", "{,2}"])
        if self.maybe(0.25):
            self.features.add("lazy quantifier")
            return greedy + "?"
        if self.maybe(0.02):
            self.features.add("possessive quantifier")
            return greedy + "+"
        return greedy

    def pattern(self, depth: int = 0) -> str:
        """Any pattern (the empty text may match)."""
        if self.looks and self.maybe(0.2):
            left, right = self.zero_width(), self.pattern(depth + 1)
            return left + right if self.maybe(0.5) else right + left
        pick = self.rng.random()
        if depth > 2 or pick < 0.3:
            return self.atom()
        if pick < 0.52:
            return self.pattern(depth + 1) + self.pattern(depth + 1)
        if pick < 0.58:
            return self.pattern(depth + 1) + self.atom() + self.atom()
        if pick < 0.74:
            branches = [self.pattern(depth + 1) for _ in range(self.rng.choice([2, 2, 2, 3]))]
            if self.maybe(0.08):
                branches[self.rng.randrange(len(branches))] = ""
            return self.group("|".join(branches))
        inside = self.pattern(depth + 1) if self.maybe(0.4) else self.atom()
        plain = len(inside) == 1 or (inside[0] == "[" and inside.count("]") == 1 and inside[-1] == "]")
        return (inside if plain else self.group(inside)) + self.count()

    def terminal(self) -> str:
        """A pattern that needs a character, nearly always."""
        text = self.pattern()
        for _ in range(6):
            try:
                if re.compile(text).match("") is None:
                    break
            except re.error:
                pass
            text = self.pattern()
        else:
            text += self.letter()
        if self.maybe(0.12):
            return f"{text}|{self.atom()}{self.pattern(2)}"  # a top-level alternation: order decides
        return text
