"""A commit that takes too long is given up, and the next one asks for less at once."""

from services.kernel.command import group_commit as group_commit_module
from services.kernel.command.group_commit import GROUP_SIZE_STEP
from services.kernel.errors import Unavailable
from tests.box import Box, ThingsView
from tests.box_world import answers, running_log


class SlowView(ThingsView):
    """Takes its time for each event."""

    pause_s = 0.03

    async def apply(self, tx, schema, events):
        """Sleep first."""
        await tx.execute("select pg_sleep($1)", self.pause_s * len(events))
        await super().apply(tx, schema, events)


async def test_after_a_group_that_took_too_long_groups_are_smaller_for_a_while(
    database, monkeypatch
):
    monkeypatch.setattr(group_commit_module, "COMMIT_TIMEOUT_S", 1.0)
    view, sizes = SlowView(), []
    async with running_log(database, views=(view,)) as world:
        commit = type(world.group_commit)._commit

        async def counting(self, group):
            sizes.append(len(group))
            await commit(self, group)

        monkeypatch.setattr(type(world.group_commit), "_commit", counting)
        too_many = await answers(world.put(f"{number}", "hat") for number in range(40))
        smaller = await answers(world.put(f"{number}", "hat") for number in range(40))
        view.pause_s = 0
        grown = await answers(world.put(f"{number}", "hat") for number in range(40))

        assert {Unavailable} == {type(answer) for answer in too_many}
        assert {Box} == {type(answer) for answer in smaller + grown}
        assert [40, 20, 20, 20 + 2 * GROUP_SIZE_STEP, 40 - 20 - 2 * GROUP_SIZE_STEP] == sizes
        await world.assert_whole()
