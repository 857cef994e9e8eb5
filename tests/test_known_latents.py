"""What is kept of latents that prompts showed, and for how long."""

import asyncio

from app.store.queries import LatentSummary
from app.web.known_latents import KnownLatents


def summary(index, label):
    return LatentSummary(index, label, "harvest", 0.1, 1.0, 0.0, [1, 2])


def test_latents_are_fetched_once_an_edition_and_the_oldest_make_room():
    rows = {(7, index): summary(index, "old") for index in range(6)}
    fetched = []

    async def fetch(keys):
        fetched.append(sorted(keys))
        return {key: rows[key] for key in keys if key in rows}

    async def walk():
        known = KnownLatents(fetch, most=4)
        assert await known.get([], {}) == {}
        assert await known.get([(7, 1), (7, 2)], {7: 0}) == {key: rows[key] for key in [(7, 1), (7, 2)]}
        assert await known.get([(7, 2), (7, 3), (7, 9)], {7: 0}) == {key: rows[key] for key in [(7, 2), (7, 3)]}
        assert fetched == [[(7, 1), (7, 2)], [(7, 3), (7, 9)]]
        assert len(await known.get([(7, 1), (7, 2), (7, 3)], {7: 0})) == 3
        assert len(fetched) == 2
        rows[7, 2] = summary(2, "new")
        assert (await known.get([(7, 2)], {7: 1}))[7, 2].label == "new"  # another edition
        assert fetched[2:] == [[(7, 2)]]
        await known.get([(7, 4), (7, 5)], {7: 1})
        await known.get([(7, 2), (7, 4), (7, 5)], {7: 1})
        assert len(fetched) == 4
        await known.get([(7, 1)], {7: 0})  # there were four, and this was the one used longest ago
        assert fetched[4:] == [[(7, 1)]]

    asyncio.run(walk())
