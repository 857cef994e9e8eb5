import asyncio

import pytest

from app.web.gathered import Gathered


def test_what_is_asked_for_at_once_is_fetched_once_and_nothing_is_kept():
    fetched = []

    async def fetch(keys):
        fetched.append(keys)
        await asyncio.sleep(0)
        return {key: -key for key in keys if key < 10}

    async def walk():
        numbers = Gathered(fetch)
        first = await asyncio.gather(numbers.get([1, 2]), numbers.get([2, 3]), numbers.get([12]), numbers.get([]))
        assert first == [{1: -1, 2: -2}, {2: -2, 3: -3}, {}, {}]
        assert fetched == [[1, 2, 3, 12]]
        assert await numbers.get([1]) == {1: -1}
        assert fetched[1:] == [[1]]

    asyncio.run(walk())


def test_who_asks_while_a_fetch_is_under_way_is_told_of_a_later_one():
    value, going, fetched = [1], asyncio.Event(), []

    async def fetch(keys):
        told = dict.fromkeys(keys, value[0])
        fetched.append(keys)
        await going.wait()
        return told

    async def walk():
        numbers = Gathered(fetch)
        first = asyncio.create_task(numbers.get(["a"]))
        while not fetched:
            await asyncio.sleep(0)
        value[0] = 2
        second = asyncio.create_task(numbers.get(["a"]))
        going.set()
        assert [await first, await second] == [{"a": 1}, {"a": 2}]

    asyncio.run(walk())


def test_who_goes_away_takes_nothing_from_others_and_a_failure_is_told_to_all_and_over_with():
    fail = [False]

    async def fetch(keys):
        await asyncio.sleep(0)
        if fail[0]:
            raise OSError("gone")
        return dict.fromkeys(keys, 1)

    async def walk():
        numbers = Gathered(fetch)
        tasks = [asyncio.create_task(numbers.get([key])) for key in (1, 2)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        assert await tasks[1] == {2: 1}
        fail[0] = True
        told = await asyncio.gather(numbers.get([1]), numbers.get([2]), return_exceptions=True)
        assert [type(one) for one in told] == [OSError, OSError]
        fail[0] = False
        assert await numbers.get([1]) == {1: 1}

    asyncio.run(walk())


def test_a_fetch_in_which_nobody_is_interested_any_more_may_fail_silently():
    async def fetch(keys):
        await asyncio.sleep(0)
        raise OSError("gone")

    async def walk():
        complaints = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, told: complaints.append(told))
        task = asyncio.create_task(Gathered(fetch).get([1]))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in range(5):
            await asyncio.sleep(0)
        assert complaints == []

    asyncio.run(walk())
