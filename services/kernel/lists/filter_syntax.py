r"""The filter language of AIP-160 from text to tree; knows no field and no database.

    filter      = [expression]
    expression  = sequence {"AND" sequence}
    sequence    = factor {factor}                 side by side means AND
    factor      = term {"OR" term}                `a AND b OR c` is `a AND (b OR c)`
    term        = ["NOT" | "-"] simple
    simple      = "(" expression ")" | path [operator value]
    path        = segment {"." segment}
    operator    = "=" | "!=" | "<" | "<=" | ">" | ">=" | ":"

A path without an operator is a search for that word. A segment or value is bare text or a quoted
string; in both a `*` is a wildcard, which a quoted string escapes as `\*`. A bare value may hold
dots and be an RFC 3339 time: `email = a@b.org` and `create_time > 2024-01-01T00:00:00Z` need no
quotes. Functions are refused: no service has any. A lower-case `and`, `or`, `not` is refused too,
because searching for that word is never what was meant.
"""

from __future__ import annotations

import re

from services.kernel.lists.filter_tree import (
    ESCAPES,
    KEYWORDS,
    And,
    Expression,
    InvalidFilter,
    Literal,
    Not,
    Operator,
    Or,
    Restriction,
    Rule,
    Search,
)

FILTER_LENGTH_MAX = 8192
FILTER_DEPTH_MAX = 32
FILTER_RESTRICTIONS_MAX = 100

_SPACE = re.compile(r"\s*")
_SEGMENT = re.compile(r"""(?!-)[^\s()"',.:<>=!\\]+""")
_OPERATOR = re.compile(r"!=|<=|>=|=|<|>|:")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)", re.ASCII)
_VALUE = re.compile(r"""[^\s()"',:<>=!\\]+""")
_WORD = re.compile(r"(AND|OR|NOT)(?=[\s()\-\"']|$)")


def parse_filter(text: str) -> Expression | None:
    """Reads a filter; None for the empty one, which everything matches."""
    if len(text) > FILTER_LENGTH_MAX:
        message = f"a filter has at most {FILTER_LENGTH_MAX} characters"
        raise InvalidFilter(Rule.LIMIT, message, position=FILTER_LENGTH_MAX)
    for position, character in enumerate(text):
        # PostgreSQL's text and UTF-8 know neither.
        if character == "\0" or "\ud800" <= character <= "\udfff":
            raise InvalidFilter(Rule.SYNTAX, "this character is not text", position=position)
    return _Parser(text).filter()


class _Parser:
    """Recursive descent over the text itself: what a word is depends on where it stands."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._restrictions = 0

    def filter(self) -> Expression | None:
        self._skip_space()
        if self._at_end():
            return None
        expression = self._expression()
        if not self._at_end():
            raise self._wrong("there is no group to close" if self._sees(")") else None)
        return expression

    def _expression(self) -> Expression:
        operands = self._sequence()
        while self._takes_word("AND"):
            operands += self._sequence()
        return operands[0] if len(operands) == 1 else And(tuple(operands))

    def _sequence(self) -> list[Expression]:
        factors = [self._factor()]
        while not (self._at_end() or self._sees(")") or self._sees_word("AND")):
            factors.append(self._factor())
        return factors

    def _factor(self) -> Expression:
        terms = [self._term()]
        while self._takes_word("OR"):
            terms.append(self._term())
        return terms[0] if len(terms) == 1 else Or(tuple(terms))

    def _term(self) -> Expression:
        if self._takes_word("NOT") or self._takes("-"):
            return Not(self._simple())
        return self._simple()

    def _simple(self) -> Expression:
        if not self._takes("("):
            return self._restriction()
        self._depth += 1
        if self._depth > FILTER_DEPTH_MAX:
            message = f"groups nest at most {FILTER_DEPTH_MAX} deep"
            raise InvalidFilter(Rule.LIMIT, message, position=self._at)
        expression = self._expression()
        if not self._takes(")"):
            raise self._wrong("a group is not closed" if self._at_end() else None)
        self._depth -= 1
        return expression

    def _restriction(self) -> Expression:
        start = self._at
        self._count_restriction()
        segments = [self._segment()]
        while self._at < len(self._text) and self._text[self._at] == ".":
            self._at += 1
            segments.append(self._segment())
        if self._text.startswith("(", self._at):
            name = self._text[start : self._at]
            message = f"there is no function {name}"
            raise InvalidFilter(Rule.FUNCTION, message, position=start)
        end = self._at
        self._skip_space()
        found = _OPERATOR.match(self._text, self._at)
        if found is None:
            return self._search(segments, start, end)
        self._at = found.end()
        self._skip_space()
        path = tuple(segment.text for segment in segments)
        return Restriction(path, Operator(found.group()), self._value(), start)

    def _search(self, segments: list[Literal], start: int, end: int) -> Search:
        written = self._text[start:end]
        if written.upper() in KEYWORDS:
            message = f"write {written.upper()}, or quote the word to search for it"
            raise InvalidFilter(Rule.SYNTAX, message, position=start)
        if len(segments) == 1:
            return Search(segments[0])
        if any(quote in written for quote in "\"'"):
            message = "a path needs an operator and a value"
            raise InvalidFilter(Rule.SYNTAX, message, position=start)
        return Search(Literal(tuple(written.split("*")), start))

    def _segment(self) -> Literal:
        if self._sees_quote():
            return self._quoted()
        found = _SEGMENT.match(self._text, self._at)
        if found is None:
            raise self._wrong(None)
        return self._taken(found)

    def _value(self) -> Literal:
        if self._sees_quote():
            value = self._quoted()
        else:
            found = _TIME.match(self._text, self._at) or _VALUE.match(self._text, self._at)
            if found is None:
                raise self._wrong("a value is missing")
            if found.group() in KEYWORDS:
                raise self._wrong(f'a value is missing; quote "{found.group()}" if it is one')
            value = self._taken(found)
        if not (self._at_end() or self._text[self._at].isspace() or self._sees(")")):
            raise self._wrong("quote a value that holds this character")
        self._skip_space()
        return value

    def _taken(self, found: re.Match[str]) -> Literal:
        self._at = found.end()
        return Literal(tuple(found.group().split("*")), found.start())

    def _quoted(self) -> Literal:
        start = self._at
        quote = self._text[start]
        pieces = [""]
        at = start + 1
        while at < len(self._text) and self._text[at] != quote:
            character = self._text[at]
            if character == "\\":
                at += 1
                escaped = ESCAPES.get(self._text[at : at + 1])
                if escaped is None:
                    message = "this is no escape; write \\\\ for a backslash"
                    raise InvalidFilter(Rule.SYNTAX, message, position=at - 1)
                pieces[-1] += escaped
            elif character == "*":
                pieces.append("")
            else:
                pieces[-1] += character
            at += 1
        if at >= len(self._text):
            raise InvalidFilter(Rule.SYNTAX, "a quoted string is not closed", position=start)
        self._at = at + 1
        return Literal(tuple(pieces), start)

    def _count_restriction(self) -> None:
        self._restrictions += 1
        if self._restrictions > FILTER_RESTRICTIONS_MAX:
            message = f"a filter has at most {FILTER_RESTRICTIONS_MAX} restrictions"
            raise InvalidFilter(Rule.LIMIT, message, position=self._at)

    def _skip_space(self) -> None:
        found = _SPACE.match(self._text, self._at)
        self._at = found.end() if found else self._at

    def _at_end(self) -> bool:
        return self._at >= len(self._text)

    def _sees(self, character: str) -> bool:
        return self._text.startswith(character, self._at)

    def _sees_quote(self) -> bool:
        return self._sees('"') or self._sees("'")

    def _sees_word(self, word: str) -> bool:
        found = _WORD.match(self._text, self._at)
        return found is not None and found.group(1) == word

    def _takes(self, character: str) -> bool:
        if not self._sees(character):
            return False
        self._at += 1
        self._skip_space()
        return True

    def _takes_word(self, word: str) -> bool:
        if not self._sees_word(word):
            return False
        self._at += len(word)
        self._skip_space()
        return True

    def _wrong(self, description: str | None) -> InvalidFilter:
        if description is None:
            ended = self._at_end()
            description = "the filter ends too early" if ended else "this was not expected here"
        return InvalidFilter(Rule.SYNTAX, description, position=self._at)
