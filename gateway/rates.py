"""How often a source may send: a bucket of tokens for each, which fills again as time goes by.

Counted in this process alone: behind several gateways a source may send as often through each.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final

from services.kernel.errors import ResourceExhausted

SOURCES_MAX: Final = 10_000
"""Sources that are remembered; the one that has been silent longest starts with a full bucket."""

RETRY_AFTER: Final = "retry_after_s"
"""In the metadata of the refusal: after how many seconds to come again."""


class Rates:
    """Lets through `per_s` requests a second of each source, and `burst` of them at once."""

    def __init__(
        self, per_s: float, burst: int, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_s = per_s
        self._burst = burst
        self._monotonic = monotonic
        # How many tokens a source had, and when.
        self._left: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def take(self, source: Hashable) -> None:
        """Takes a token; raises ResourceExhausted when there is none."""
        now = self._monotonic()
        tokens, since = self._left.get(source, (float(self._burst), now))
        tokens = min(float(self._burst), tokens + (now - since) * self._per_s)
        if tokens < 1:
            self._refuse((1 - tokens) / self._per_s)
        self._left[source] = (tokens - 1, now)
        self._left.move_to_end(source)
        if len(self._left) > SOURCES_MAX:
            self._left.popitem(last=False)

    def _refuse(self, wait_s: float) -> None:
        error = ResourceExhausted("REQUESTS_PER_S", math.ceil(self._per_s))
        error.metadata[RETRY_AFTER] = str(math.ceil(wait_s))
        raise error
