"""What can go wrong with the stack: each says what to do next."""


class StackError(Exception):
    """A part of the stack cannot start or run; the message is for the person at the terminal."""
