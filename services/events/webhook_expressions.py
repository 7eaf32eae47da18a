"""CEL expressions of a webhook's mapping: compiled, checked, and bounded. Pure.

CEL always ends, but nothing in it says when: a loop copies what it has gathered for each item, and
a look at a variable copies it whole. So a loop inside or after a loop is refused, as are functions
that may grow what they get, and everything else is charged for: whoever asks for too much is
stopped at WORK_MAX.
"""

from __future__ import annotations

import re
from typing import Any, Final

import cel
import orjson
from cel import stdlib

EXPRESSION_CHARACTERS_MAX: Final = 1000
WORK_MAX: Final = 64 * 1024 * 1024
"""Bytes copied for one delivery, about a second's worth."""

# What a loop over the parts of an expression itself costs, for each pair of them.
_LOOP_COST: Final = 4

LOOPS: Final = frozenset({"all", "exists", "exists_one", "existsOne", "filter", "map"})

_FUNCTIONS: Final = {
    "lowerAscii": stdlib.lower_ascii,
    "trim": stdlib.trim,
    "upperAscii": stdlib.upper_ascii,
}
_KNOWN: Final = frozenset(
    {
        *_FUNCTIONS,
        *("contains", "double", "endsWith", "int", "size", "startsWith", "string", "timestamp"),
    }
)
_TOKEN: Final = re.compile(
    r"""\s*(?:
        (?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
        | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
        | (?P<number>[0-9][0-9A-Za-z_]*)
        | (?P<sign>&&|\|\||[=!<>]=|[-+*/%!?:.,<>()\[\]{}])
    )""",
    re.VERBOSE,
)
_OPENERS: Final = {")": "(", "]": "[", "}": "{"}
# What a member is taken of ends, to its left, where one of these stands.
_BORDERS: Final = frozenset("+-*/%!?:,<>([{") | {"&&", "||", "==", "!=", "<=", ">=", "in"}


class ExpressionError(Exception):
    """When an expression cannot be compiled, or has no value; says why in words."""


class Sent:
    """What expressions see of a delivery, converted once for all of them.

    `items` is the number of items in the longest list or map that is anywhere in it.
    """

    def __init__(self, variables: dict[str, Any], *, items: int) -> None:
        self.items = items
        self._left = WORK_MAX
        self._times = 1
        self._sizes: dict[str, int] = {}
        self._context = cel.Context({}, dict(_FUNCTIONS))
        self._context.set_variable_resolver(self._look)
        for name, value in variables.items():
            self.say(name, value)

    def say(self, name: str, value: Any) -> None:
        """Says what a variable is, or is from now on; raises ExpressionError if it is no JSON."""
        try:
            self._sizes[name] = len(orjson.dumps(value))
            self._context.add_variable(name, value)
        except (TypeError, ValueError, OverflowError) as error:
            raise ExpressionError(f"{name} holds what is no JSON") from error

    def evaluated(self, program: cel.Program, *, cost: int, times: int) -> Any:
        """What a program gives; charges its cost, and for each look `times` its size."""
        self._left -= cost
        self._times = times
        try:
            value = program.execute(self._context)
        except Exception as error:
            if self._left < 0:
                raise _too_much() from error
            raise ExpressionError(_first_line(error)) from error
        if self._left < 0:
            raise _too_much()
        return value

    def _look(self, name: str) -> Any:
        self._left -= self._sizes.get(name, 0) * self._times
        # Any value ends the search for a variable; one that has no members ends the work.
        return 0 if self._left < 0 else None


class Expression:
    """An expression that was found harmless."""

    def __init__(self, source: str, *, variables: frozenset[str]) -> None:
        """Raises ExpressionError when it is none, knows other names, or is not harmless."""
        if len(source) > EXPRESSION_CHARACTERS_MAX:
            raise ExpressionError(f"is longer than {EXPRESSION_CHARACTERS_MAX} characters")
        tokens = _tokens(source)
        own = _loop_variables(tokens)
        if own & variables:
            raise ExpressionError(f"uses {min(own & variables)} as a name of its own")
        try:
            self._program = cel.compile(source)
        except ValueError as error:
            raise ExpressionError(f"is no CEL: {_first_line(error)}") from error
        unknown = set(self._program.variables()) - variables - own
        if unknown:
            raise ExpressionError(
                f"does not know {min(unknown)}; there are {', '.join(sorted(variables))}"
            )
        forbidden = {name for name in self._program.functions() if name[0].isalpha()} - _KNOWN
        if forbidden:
            raise ExpressionError(f"may not use {min(forbidden)}")
        self._uses = sum(name in variables for name in tokens)
        self._parts = len(tokens)
        self._has_loop = bool(own)

    def value(self, sent: Sent) -> Any:
        """What it says of a delivery; raises ExpressionError when it says nothing."""
        cost = self._parts * (_LOOP_COST * self._parts if self._has_loop else 1)
        return sent.evaluated(self._program, cost=cost, times=self._copies(sent))

    def _copies(self, sent: Sent) -> int:
        """How often a byte that is looked at may be copied: lists that are joined are long ones."""
        if not self._has_loop:
            return self._uses
        return max(self._parts, self._uses * sent.items)


def _tokens(source: str) -> list[str]:
    """The parts of an expression; what CEL could read otherwise than we do is refused."""
    found: list[str] = []
    place = 0
    while place < len(source.rstrip()):
        match = _TOKEN.match(source, place)
        if match is None:
            raise ExpressionError(f"is not understood at {source[place : place + 20].strip()!r}")
        # A text that follows at once would be a raw one, of bytes, or one over several lines.
        if match["text"] and place and not match[0][0].isspace() and _ends_word(source[place - 1]):
            raise ExpressionError("may only hold plain texts, in one pair of quotes")
        found.append(match[match.lastgroup or 0])
        if found[-2:] == ["/", "/"]:
            raise ExpressionError("may hold no comment")
        place = match.end()
    if not found:
        raise ExpressionError("is empty")
    return found


def _ends_word(character: str) -> bool:
    return character.isalnum() or character in "_\"'"


def _loop_variables(tokens: list[str]) -> frozenset[str]:
    """The names that loops give their items; refuses a loop inside another, or of another's."""
    loops = [
        place
        for place, name in enumerate(tokens)
        if name in LOOPS and tokens[place - 1 : place] == ["."] and tokens[place + 1 :][:1] == ["("]
    ]
    names = []
    for place in loops:
        begin, end = _begin(tokens, place - 1), _end(tokens, place + 1)
        if any(begin <= other < end for other in loops if other != place):
            raise ExpressionError("has a loop inside another, or over what another gives")
        names.append(tokens[place + 2] if place + 2 < len(tokens) else "")
    return frozenset(names)


def _begin(tokens: list[str], place: int) -> int:
    """Where what stands before the dot at a place begins."""
    place -= 1
    while place >= 0 and tokens[place] not in _BORDERS:
        if tokens[place] in _OPENERS:
            place = _opener(tokens, place)
        place -= 1
    return place + 1


def _opener(tokens: list[str], place: int) -> int:
    depth = 0
    while place >= 0:
        depth += (tokens[place] in _OPENERS) - (tokens[place] in _OPENERS.values())
        if depth == 0:
            return place
        place -= 1
    return 0


def _end(tokens: list[str], place: int) -> int:
    """Where what is opened at a place ends."""
    depth = 0
    for end in range(place, len(tokens)):
        depth += (tokens[end] in _OPENERS.values()) - (tokens[end] in _OPENERS)
        if depth == 0:
            return end
    return len(tokens)


def _too_much() -> ExpressionError:
    return ExpressionError("looks too often at what was sent; it is too large for that")


def _first_line(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"there is no {str(error.args[0])[:100]!r}"
    return str(error).partition("\n")[0][:200]
