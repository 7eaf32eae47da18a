"""What a process needs to erase people from its service: who is asked, and who compacts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rapport.common.v1 import subjects_pb2, subjects_pb2_grpc
from services.kernel.erasing.compaction import Compactor
from services.kernel.erasing.erasing import Erasing
from services.kernel.erasing.service import SubjectsServicer
from services.kernel.erasing.turns import Turns
from services.kernel.feed.feed import Feed
from services.kernel.rpc.server import Served, served

if TYPE_CHECKING:
    from services.kernel.feed.feed import FeedConnection
    from services.kernel.process.config import ServiceConfig
    from services.kernel.process.runtime import Kernel, Service


@dataclass(frozen=True, slots=True)
class SubjectErasing:
    """What a service serves about people's data, and what runs for it."""

    servicer: SubjectsServicer
    erasing: Erasing
    turns: Turns
    compactor: Compactor

    @property
    def served(self) -> Served:
        """What is served of it."""
        return served(subjects_pb2, subjects_pb2_grpc, self.servicer)


def subject_erasing(
    service: Service, kernel: Kernel, connection: FeedConnection, config: ServiceConfig
) -> SubjectErasing | None:
    """Wires the erasing of a service that holds data about people; None for one that does not."""
    if service.holdings is None:
        return None
    holdings = service.holdings(kernel)
    compactor = Compactor(kernel.pool, config.database_url)
    feeds = {
        partition: Feed(
            connection,
            service=service.name,
            partition=partition,
            replicas=config.nats_replicas,
        )
        for partition in range(kernel.log.partitions)
    }
    erasing = Erasing(
        kernel.pool,
        kernel.log,
        holdings,
        event_types=kernel.event_types,
        views=service.views,
        all_views=(*service.views, *(consumer.view for consumer in service.consumers)),
        feeds=feeds,
        wake_compactor=compactor.wake,
    )
    turns = Turns(erasing)
    servicer = SubjectsServicer(kernel.pool, holdings, turns, kernel.derive_key)
    return SubjectErasing(servicer, erasing, turns, compactor)
