"""Watching profiles: their changes are read off identity's own log, what they are from the view.

Both change in one transaction, so what is read after a fact was seen is at least as new. While a
reader is slow nothing is read for it, and nothing is kept but its place in the log: what happens
meanwhile is told at once when it takes the next answer, of each profile the last state.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rapport.identity.v1 import service_pb2 as pb
from services.identity.changes import name_of
from services.identity.news import News
from services.identity.projections import find_profile_id, get_profile
from services.identity.projections.profiles import LISTING
from services.identity.projections.timeline import FIELDS
from services.identity.projections.watched import changes_now, entries_that_came
from services.kernel.errors import NotFound
from services.kernel.log.tokens import encode_write_token
from services.kernel.process.runtime import Kernel

T = TypeVar("T")

# As many whole profiles, or entries, of a usual size as fit into one response.
TOLD_AT_ONCE_MAX = 100


@dataclass(frozen=True, slots=True)
class Watching:
    """The watches of one workspace."""

    kernel: Kernel
    workspace: str

    async def profile(self, name: str) -> AsyncIterator[pb.WatchProfileResponse]:
        """Tells what a name leads to, now and after each change."""
        after = await self._begin("")
        shown: pb.Profile | None = await get_profile(self.kernel.pool, self.workspace, name)
        yield pb.WatchProfileResponse(profile=shown)
        async for news, _ in self._news(after):
            if shown is not None and shown.name not in news.touched:
                continue
            now = await self._profile_or_none(name)
            if now != shown:
                shown = now
                yield pb.WatchProfileResponse(profile=shown)

    async def profiles(
        self, request: pb.WatchProfilesRequest
    ) -> AsyncIterator[pb.WatchProfilesResponse]:
        """Tells profiles that changed."""
        wanted = LISTING.fields.filter(request.filter)
        after = await self._begin(request.resume_token)
        token = self._token(after)
        yield pb.WatchProfilesResponse(resume_token=token)
        async for news, reached in self._news(after):
            for part, is_last in _parts(sorted(news.touched)):
                changes = await changes_now(self.kernel.pool, self.workspace, part, wanted)
                token = self._token(reached) if is_last else token
                yield pb.WatchProfilesResponse(changes=changes, resume_token=token)

    async def timeline(
        self, request: pb.WatchTimelineRequest
    ) -> AsyncIterator[pb.WatchTimelineResponse]:
        """Tells what comes to a profile's timeline, and what goes."""
        wanted = FIELDS.filter(request.filter)
        after = await self._begin(request.resume_token)
        profile = await self._profile_name(request.name)
        token = self._token(after)
        yield pb.WatchTimelineResponse(resume_token=token)
        async for news, reached in self._news(after):
            if profile and profile not in news.touched:
                continue
            before, profile = profile, await self._profile_name_if_any(request.name)
            entries = await entries_that_came(
                self.kernel.pool, self.workspace, profile, news.recorded, wanted
            )
            last = pb.WatchTimelineResponse(
                retracted_activity_ids=_retracted(news, {before, profile}),
                is_regrouped=before != profile or not news.regrouped.isdisjoint({before, profile}),
            )
            for part, is_last in _parts(entries):
                if is_last:
                    last.entries.extend(part)
                else:
                    yield pb.WatchTimelineResponse(entries=part, resume_token=token)
            token = self._token(reached)
            if last.ByteSize():
                last.resume_token = token
                yield last

    async def _begin(self, resume_token: str) -> dict[int, int]:
        return await self.kernel.follower.begin(self.kernel.log.service, resume_token)

    def _token(self, reached: Mapping[int, int]) -> str:
        return encode_write_token(self.kernel.log.service, reached)

    async def _news(self, after: dict[int, int]) -> AsyncIterator[tuple[News, dict[int, int]]]:
        """Yields what happens to profiles, and how far the log was read."""
        async for events, reached in self.kernel.follower.follow(self.workspace, after):
            news = News.of(events)
            if news.touched:
                yield news, reached

    async def _profile_or_none(self, name: str) -> pb.Profile | None:
        try:
            return await get_profile(self.kernel.pool, self.workspace, name)
        except NotFound:
            return None

    async def _profile_name(self, name: str) -> str:
        return name_of(await find_profile_id(self.kernel.pool, self.workspace, name))

    async def _profile_name_if_any(self, name: str) -> str:
        """Returns the profile that a name leads to; an empty text when it leads to nobody."""
        try:
            return await self._profile_name(name)
        except NotFound:
            return ""


def _parts(items: Sequence[T]) -> Iterator[tuple[Sequence[T], bool]]:
    """Yields as much at a time as is told at once, and whether it is the last."""
    for start in range(0, len(items), TOLD_AT_ONCE_MAX):
        yield items[start : start + TOLD_AT_ONCE_MAX], start + TOLD_AT_ONCE_MAX >= len(items)


def _retracted(news: News, profiles: Collection[str]) -> list[str]:
    """Returns the ids of activities that were taken back from some profiles."""
    return [fact.activity_id for fact in news.retracted if fact.profile in profiles]
