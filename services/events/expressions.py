"""CEL expressions: which ones are taken, what they see, and their values. Pure.

They are evaluated while somebody waits, on what a stranger sent. CEL always ends, but nothing in it
says when: a loop copies what it has gathered for each item, and a look at a variable copies it
whole. So a loop inside another, or over what another gives, is refused; so are functions that may
grow what they get, and regular expressions that are not written out and small. Everything else is
charged for: whoever asks for too much is stopped when his `Work` is used up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import cel
import orjson

from services.events.expression_syntax import ExpressionError, Syntax

WORK_MAX: Final = 32 * 1024 * 1024
"""Bytes copied for one customer event or one delivery, about half a second's worth."""
VALUE_DEPTH_MAX: Final = 100
"""Levels of a value: what is written as JSON must not be deeper than its reader takes."""

# What a loop over the parts of an expression itself costs, for each pair of them.
_LOOP_COST: Final = 4
# What a regular expression does with a byte, beside what a copy of it takes.
_MATCH_COST: Final = 16

_OWN: Final[Mapping[str, Callable[[Any], Any]]] = {
    "lowerAscii": lambda value: value.lower() if isinstance(value, str) else value,
    "upperAscii": lambda value: value.upper() if isinstance(value, str) else value,
    "trim": lambda value: value.strip() if isinstance(value, str) else value,
}
"""Functions beside CEL's; what is no text they leave as it is."""
_FUNCTIONS: Final = frozenset(_OWN) | {
    "contains",
    "double",
    "duration",
    "dyn",
    "endsWith",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
    "int",
    "matches",
    "size",
    "startsWith",
    "string",
    "timestamp",
    "type",
    "uint",
}


class Work:
    """What expressions may still do for one customer event, or for one delivery."""

    __slots__ = ("left",)

    def __init__(self, left: int = WORK_MAX) -> None:
        self.left = left

    @property
    def is_used_up(self) -> bool:
        """Whether more was asked for than there was."""
        return self.left < 0

    def take(self, cost: int) -> None:
        """Charges for something; ExpressionError when that is too much."""
        self.left -= cost
        if self.is_used_up:
            raise ExpressionError("looks too often at what was sent; it is too large for that")


class Seen:
    """What expressions see, converted once for all of them."""

    __slots__ = ("_context", "_lengths", "_sizes", "_times", "_values", "_work")

    def __init__(self, variables: Mapping[str, Any], work: Work) -> None:
        """Raises ExpressionError for what is no JSON."""
        self._work = work
        self._times = 1
        self._values: dict[str, Any] = {}
        self._sizes: dict[str, int] = {}
        self._lengths: dict[str, int] = {}
        self._context = cel.Context({}, dict(_OWN))
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
        self._values[name] = value
        self._lengths.pop(name, None)

    def longest(self) -> int:
        """The length of the longest list or object that is anywhere in it."""
        for name in self._values.keys() - self._lengths.keys():
            self._lengths[name] = _longest(self._values[name])
        return max(self._lengths.values(), default=0)

    def evaluated(self, program: cel.Program, *, cost: int, times: int) -> Any:
        """What a program gives; charges its cost, and for each look `times` its size."""
        self._work.take(cost)
        self._times = times
        try:
            found = _executed(program, self._context)
        finally:
            self._work.take(0)
        return found

    def _look(self, name: str) -> Any:
        self._work.left -= self._sizes.get(name, 0) * self._times
        # Any value ends the search for a variable; one that has no members ends the work.
        return 0 if self._work.is_used_up else None


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression.

    `reads` are the variables that it looks at: of an object the members that it names, or None for
    all of it. `functions` are those of ours that it calls. Without a program it never has a value,
    and `fault` says why.
    """

    program: cel.Program | None
    reads: Mapping[str, frozenset[str] | None]
    functions: Mapping[str, Callable[[Any], Any]]
    parts: int = 0
    uses: int = 0
    matches: int = 0
    has_loop: bool = False
    fault: str = ""

    def value(self, variables: Mapping[str, Any], work: Work) -> Any:
        """Its value as JSON, where nobody else sees these; ExpressionError when it has none.

        Only what it reads is handed to the library, which takes its time with each value.
        """
        read = {
            name: variables[name] if members is None else _part(variables[name], members)
            for name, members in self.reads.items()
        }
        if self.program is None or self.has_loop:
            return self.value_in(Seen(read, work))
        # Without a loop nothing is looked at more often than it is named.
        work.take(self.parts + len(orjson.dumps(read)) * self.uses * self._copies())
        context = cel.Context(read, dict(self.functions)) if self.functions else read
        return as_json(_executed(self.program, context))

    def value_in(self, seen: Seen) -> Any:
        """Its value as JSON, of what others see, too; ExpressionError when it has none."""
        if self.program is None:
            raise ExpressionError(self.fault)
        cost, times = self.parts, self._copies()
        if self.has_loop:
            cost *= _LOOP_COST * self.parts
            times = max(self.parts, self.uses * seen.longest())
        return as_json(seen.evaluated(self.program, cost=cost, times=times))

    def holds(self, variables: Mapping[str, Any], work: Work) -> bool:
        """Whether its value is true; ExpressionError when it is neither true nor false."""
        found = self.value(variables, work)
        if not isinstance(found, bool):
            raise ExpressionError("it is neither true nor false")
        return found

    def _copies(self) -> int:
        """How often a byte that is looked at may be copied: lists that are joined are long ones."""
        return self.uses + self.matches * _MATCH_COST


def compiled_expression(text: str, variables: frozenset[str]) -> Expression:
    """An expression that may be used on these variables, else ExpressionError."""
    syntax = Syntax(text)
    own = syntax.loop_variables()
    if own & variables:
        raise ExpressionError(f"uses {min(own & variables)} as a name of its own")
    try:
        program = cel.compile(text)
    except Exception as error:  # noqa: BLE001, the library raises a dozen kinds
        raise ExpressionError(f"is no CEL: {error}".partition("\n")[0][:300]) from None
    functions = {name for name in program.functions() if name[0].isalpha()}
    if functions - _FUNCTIONS:
        raise ExpressionError(f"there is no function {min(functions - _FUNCTIONS)}")
    read = frozenset(program.variables()) - own
    if read - variables:
        known = ", ".join(sorted(variables))
        raise ExpressionError(f"there is no {min(read - variables)}; there are {known}")
    return Expression(
        program=program,
        reads={name: syntax.members_read(name) for name in read},
        functions={name: _OWN[name] for name in functions & _OWN.keys()},
        parts=len(syntax.tokens),
        uses=sum(token in variables for token in syntax.tokens),
        matches=syntax.checked_patterns(),
        has_loop=bool(own),
    )


def accepted_expression(text: str, variables: frozenset[str]) -> Expression:
    """An expression that was accepted once; should it no longer be, it never has a value."""
    try:
        return compiled_expression(text, variables)
    except ExpressionError as error:
        return Expression(None, {}, {}, fault=str(error))


def as_json(value: Any, depth: int = 0) -> Any:
    """A value of CEL as JSON; times are texts. ExpressionError when it is none."""
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if depth >= VALUE_DEPTH_MAX:
        raise ExpressionError(f"its value is nested more than {VALUE_DEPTH_MAX} levels deep")
    if isinstance(value, list):
        return [as_json(item, depth + 1) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: as_json(item, depth + 1) for key, item in value.items()}
    raise ExpressionError(f"a {type(value).__name__} is no JSON")


def _executed(program: cel.Program, context: cel.Context | dict[str, Any]) -> Any:
    try:
        return program.execute(context)
    except KeyError as error:
        raise ExpressionError(f"there is no {str(error.args[0])[:100]!r}") from None
    except Exception as error:  # noqa: BLE001, the library raises a dozen kinds
        # The library's words may hold what was sent, which is nobody's business.
        raise ExpressionError(type(error).__name__) from None


def _part(whole: Any, members: frozenset[str]) -> Any:
    if not isinstance(whole, dict):
        return whole
    return {name: whole[name] for name in members if name in whole}


def _longest(value: Any) -> int:
    """The length of the longest list or object in a JSON value."""
    longest, level = 0, [value]
    while level:
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict | list):
                longest = max(longest, len(each))
                inner += each.values() if isinstance(each, dict) else each
        level = inner
    return longest
