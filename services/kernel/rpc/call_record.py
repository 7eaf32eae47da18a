"""What is kept of a call: its canonical line in the log, and its part in the numbers."""

from __future__ import annotations

from time import perf_counter
from typing import Final

import grpc

from services.kernel.process import telemetry
from services.kernel.process.metrics import RpcMetrics

_OUR_FAULT: Final = {
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}


class CallRecord:
    """A call from its arrival to its status."""

    def __init__(self, name: str, metrics: RpcMetrics) -> None:
        self._name = name.lstrip("/")
        self._metrics = metrics
        self._words = telemetry.start_line()
        self._begun = perf_counter()
        metrics.in_flight.labels(self._name).inc()

    def end(
        self,
        code: grpc.StatusCode,
        failure: BaseException | None = None,
        *,
        reason: str | None = None,
    ) -> None:
        """Writes the line and counts; a failure of ours goes along with its traceback."""
        duration_s = perf_counter() - self._begun
        self._metrics.in_flight.labels(self._name).dec()
        self._metrics.duration_s.labels(self._name).observe(duration_s)
        self._metrics.handled.labels(self._name, code.name).inc()
        words = {
            "method": self._name,
            "code": code.name,
            "duration_ms": round(duration_s * 1000, 3),
            **self._words,
        }
        if reason is not None:
            words["reason"] = reason
        if code in _OUR_FAULT:
            telemetry.log.error("rpc", **words, exc_info=failure)
        else:
            telemetry.log.info("rpc", **words)
