"""The words of a CEL expression, and what can be known of it before it is compiled. Pure.

What CEL could read otherwise than we do is refused: comments, and texts that are neither in one
pair of quotes nor raw. So no way of writing gets around what is asked of the words.
"""

from __future__ import annotations

import re
from typing import Final

from services.events.plan_schemas import SchemaError, compiled_schema

EXPRESSION_CHARACTERS_MAX: Final = 1_000
MATCHES_MAX: Final = 5
"""Regular expressions in one expression; none where there is a loop."""
PATTERN_BYTES_MAX: Final = 20_000
"""What one of them may take: they are compiled each time."""

_LOOPS: Final = frozenset({"all", "exists", "exists_one", "existsOne", "filter", "map"})
_MATCHES: Final = "matches"
_TOKEN: Final = re.compile(
    r"""\s*(?:
        (?P<text>r"[^"\n]*"|r'[^'\n]*'|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
        | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
        | (?P<number>[0-9][0-9A-Za-z_]*)
        | (?P<sign>&&|\|\||[=!<>]=|[-+*/%!?:.,<>()\[\]{}])
    )""",
    re.VERBOSE,
)
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPENERS: Final = {")": "(", "]": "[", "}": "{"}
# What a member is taken of ends, to its left, where one of these stands.
_BORDERS: Final = frozenset("+-*/%!?:,<>([{") | {"&&", "||", "==", "!=", "<=", ">=", "in"}


class ExpressionError(ValueError):
    """When an expression may not be used, or has no value; says why."""


class Syntax:
    """The words of an expression."""

    def __init__(self, source: str) -> None:
        """Raises ExpressionError when they cannot be told apart for sure, or are too many."""
        if len(source) > EXPRESSION_CHARACTERS_MAX:
            raise ExpressionError(f"is longer than {EXPRESSION_CHARACTERS_MAX} characters")
        self.tokens = _tokens(source)

    def loop_variables(self) -> frozenset[str]:
        """The names that loops give their items; refuses a loop in another, or over another's."""
        loops = [place for place in range(len(self.tokens)) if self._is_loop(place)]
        names = []
        for place in loops:
            begin, end = self._begin(place - 1), self._end(place + 1)
            if any(begin <= other < end for other in loops if other != place):
                raise ExpressionError("has a loop inside another, or over what another gives")
            names.append(self._at(place + 2))
        if loops and _MATCHES in self.tokens:
            raise ExpressionError("matches may not be used together with a loop")
        return frozenset(names)

    def members_read(self, name: str) -> frozenset[str] | None:
        """The members of a variable that are named, None unless it is read nowhere else.

        A member of another object that has the variable's name at worst names one too many.
        """
        members = []
        for place, token in enumerate(self.tokens):
            if token == name:
                member = self._at(place + 2)
                is_member = self._at(place + 1) == "." and _NAME.fullmatch(member)
                if not is_member or self._at(place + 3) == "(":
                    return None
                members.append(member)
        return frozenset(members)

    def checked_patterns(self) -> int:
        """How many regular expressions there are; refuses those that could take long."""
        places = [place for place, token in enumerate(self.tokens) if token == _MATCHES]
        if len(places) > MATCHES_MAX:
            detail = f"matches is used more than MATCHES_MAX times, which is {MATCHES_MAX}"
            raise ExpressionError(detail)
        for place in places:
            text = self._at(place + 2)
            is_literal = text.startswith("r") or "\\" not in text
            if (self._at(place + 1), self._at(place + 3), is_literal) != ("(", ")", True) or (
                text[-1:] not in {'"', "'"}
            ):
                raise ExpressionError("matches needs a regular expression written out: r'...'")
            _check_pattern(text.removeprefix("r")[1:-1])
        return len(places)

    def _at(self, place: int) -> str:
        return self.tokens[place] if place < len(self.tokens) else ""

    def _is_loop(self, place: int) -> bool:
        return (
            self.tokens[place] in _LOOPS
            and self.tokens[place - 1 : place] == ["."]
            and self._at(place + 1) == "("
        )

    def _begin(self, place: int) -> int:
        """Where what stands before the dot at a place begins."""
        place -= 1
        while place >= 0 and self.tokens[place] not in _BORDERS:
            if self.tokens[place] in _OPENERS:
                place = self._opener(place)
            place -= 1
        return place + 1

    def _opener(self, place: int) -> int:
        depth = 0
        while place >= 0:
            depth += self._closes(place)
            if depth == 0:
                return place
            place -= 1
        return 0

    def _end(self, place: int) -> int:
        """Where what is opened at a place ends."""
        depth = 0
        for end in range(place, len(self.tokens)):
            depth -= self._closes(end)
            if depth == 0:
                return end
        return len(self.tokens)

    def _closes(self, place: int) -> int:
        """1 where something is closed, -1 where it is opened."""
        token = self.tokens[place]
        return (token in _OPENERS) - (token in _OPENERS.values())


def _tokens(source: str) -> list[str]:
    found: list[str] = []
    place = 0
    while place < len(source.rstrip()):
        match = _TOKEN.match(source, place)
        if match is None:
            raise ExpressionError(f"is no CEL at {source[place : place + 20].strip()!r}")
        # A text that follows at once would be one of bytes, or one over several lines.
        if match["text"] and place and not match[0][0].isspace() and _ends_word(source[place - 1]):
            raise ExpressionError("may only hold plain or raw texts, in one pair of quotes")
        found.append(match[match.lastgroup or 0])
        if found[-2:] == ["/", "/"]:
            raise ExpressionError("may hold no comment")
        place = match.end()
    if not found:
        raise ExpressionError("is no CEL: it is empty")
    return found


def _ends_word(character: str) -> bool:
    return character.isalnum() or character in "_\"'"


def _check_pattern(pattern: str) -> None:
    try:
        compiled_schema({"pattern": pattern}, pattern_bytes_max=PATTERN_BYTES_MAX)
    except SchemaError:
        detail = f"the regular expression {pattern} is wrong, or too large"
        raise ExpressionError(detail[:300]) from None
