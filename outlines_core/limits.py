"""What one constraint may cost.

Nothing in a request path may hang or exhaust memory, so every structure that an input can blow up is counted against
a field of `Limits`, and going past it is a `LimitExceededError` of that one call. One frozen object is passed
everywhere; there are no global knobs.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["DEFAULT_LIMITS", "Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one compiled constraint.

    Args:
        max_pattern_length: characters of a regex.
        max_pattern_constructs: groups, sets, escapes and quantifiers of a regex (plain characters are cheaper).
        max_nesting: depth of nested groups in a regex.
        max_nfa_states: states of the byte automaton of a regex, counted repeats unrolled.
        max_states: automaton states that one compiled constraint may create over its life.
        max_state_bytes: bytes of the state tables (sets, transitions) behind these states.
        max_steps_per_call: transitions of look-around patterns that one call may compute (each takes 10-50 us).
        number_digits: digits before the exponent of a JSON number.
        max_mask_bytes: bytes of ready masks kept per compiled constraint (a cache: older ones are dropped).
    """

    max_pattern_length: int = 2_000_000
    max_pattern_constructs: int = 60_000
    max_nesting: int = 200
    max_nfa_states: int = 1_500_000
    max_states: int = 1_000_000
    max_state_bytes: int = 96 * 2**20
    max_steps_per_call: int = 20_000
    number_digits: int = 64
    max_mask_bytes: int = 64 * 2**20

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"Limits.{field.name} must be a positive integer, got {value!r}")


DEFAULT_LIMITS = Limits()
