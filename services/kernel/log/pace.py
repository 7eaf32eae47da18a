"""How those who follow the own log keep step with it: at once, but in a burst in large steps.

Most of what a small batch costs is the same for a large one, and it is taken from the same process
and database in which the next events wait to be recorded. So whoever was handed many events at
once, and has caught up, waits for more of them; never longer than `PAUSE_S`, and a view not at all
when somebody waits for what it makes of them. The relay cannot know whether anybody waits: what
other services make of the feed is staler by a pause.
"""

from __future__ import annotations

# From so many events at once on it is a burst.
BURST_SIZE_MIN = 50
# How much staler a burst may make a view or the feed.
PAUSE_S = 0.5


def pause_after(batch_size: int, batch_size_max: int) -> float:
    """How long to wait after a batch before the next; a full one says that there is more."""
    return PAUSE_S if BURST_SIZE_MIN <= batch_size < batch_size_max else 0.0
