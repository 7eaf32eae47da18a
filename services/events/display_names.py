"""What people call things by. Pure."""

from __future__ import annotations

from services.kernel.errors import InvalidArgument


def readable(display_name: str, what: str) -> str:
    """A name without blanks around it; refuses one of `what` that nobody can read."""
    name = display_name.strip()
    if not name or "\0" in name:
        raise InvalidArgument.of("display_name", f"{what} needs a name that can be read")
    return name
