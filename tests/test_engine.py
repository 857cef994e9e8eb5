"""The live engine on a real subject: what it answers, in how many forwards, in how much memory, and when it refuses."""

import asyncio
import threading

import numpy as np
import pytest
import torch

from app.errors import EngineBusy, EngineStopped, InvalidSAE, OutOfMemory, TextTooLong, TooLarge
from app.harvest.job import read_sae
from app.live import forward
from app.live.cache import Cache
from app.live.engine import Engine
from app.live.prompt import PromptRun, Reading, Target
from app.live.residents import Residents, size_of
from app.sae.formats import saelens
from tests.conftest import TEXT, random_sae

LONG = " ".join(document.text for document in TEXT)


@pytest.fixture(scope="module")
def targets(tmp_path_factory, tiny_folder):
    """Three SAEs of the tiny subject: two layers, and one more of the first."""
    made = []
    for number, (hook, seed) in enumerate((("0:out", 0), ("1:out", 1), ("0:out", 2))):
        folder = tmp_path_factory.mktemp("saes") / f"sae{number}"
        saelens.write(folder, random_sae(hook=f"model.layers.{hook}", seed=seed), matrices=torch.float32, metadata={})
        made.append(Target(f"rev{number}", "tiny", tiny_folder, folder))
    return made


def engine_of(**given):
    budget, kept = given.pop("budget", None), {"max_tokens": 2048, "max_chars": 100_000} | given
    return Engine(Residents(read_sae, dtype="float32", device="cpu", budget=budget), **kept)


@pytest.fixture
def engine():
    made = engine_of()
    made.start()
    yield made
    made.stop()


def by_hand(tiny, target, text):
    """Every activation, from the model's own hidden states and the SAE."""
    ids = torch.tensor([[tiny.bos_id, *tiny.encode(text)]])
    sae = read_sae(target.sae_path)
    layer = int(sae.config.reads[0].split(".")[2].split(":")[0])
    seen = {}
    handle = tiny.model.model.layers[layer].register_forward_hook(
        lambda _m, _a, out: seen.update(x=(out[0] if isinstance(out, tuple) else out)[0, 1:].clone())
    )
    with torch.inference_mode():
        logits = tiny.model(input_ids=ids).logits[0]
    handle.remove()
    acts = sae.encode(seen["x"])
    missed = (seen["x"] - sae.decode(acts, seen["x"])).norm(dim=1) / seen["x"].norm(dim=1)
    return ids[0], acts.dense(sae.config.n_latents), missed, logits.log_softmax(1)


def dense(reading, positions, latents=40):
    out = torch.zeros(positions, latents)
    out[reading.position.astype(np.int64), reading.latent.astype(np.int64)] = torch.from_numpy(reading.value)
    return out


def check(run, tiny, target, text):
    ids, acts, missed, _ = by_hand(tiny, target, text)
    reading = run.readings[target.revision]
    assert run.token_ids == ids.tolist()
    torch.testing.assert_close(dense(reading, len(ids))[1:], acts, atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(reading.error[1:], missed.numpy(), atol=1e-4)
    assert np.isnan(reading.error[0])


def test_several_saes_are_read_in_one_forward_and_each_is_right(engine, tiny, targets):
    run = asyncio.run(engine.read(targets, "Paris is the capital of France."))
    assert engine.forwards == 1
    assert set(run.readings) == {"rev0", "rev1", "rev2"}
    for target in targets:
        check(run, tiny, target, "Paris is the capital of France.")
    assert run.predictions is None


def test_prompts_that_arrive_together_share_a_forward_and_equal_each_alone(tiny, targets):
    texts = [f"{'The cat sat on the mat. ' * n} {n}" for n in range(1, 9)]

    async def ask(engine):
        return await asyncio.gather(*(engine.read([targets[n % 3]], text) for n, text in enumerate(texts)))

    engine = engine_of(wait_s=0.5, gap_s=0.2)
    engine.start()
    asyncio.run(engine.read(targets, "load everything first"))
    before = engine.forwards
    runs = asyncio.run(ask(engine))
    engine.stop()
    assert engine.forwards == before + 1
    assert {run.batch for run in runs} == {8}
    for number, (run, text) in enumerate(zip(runs, texts, strict=True)):
        check(run, tiny, targets[number % 3], text)


def test_a_prompt_that_is_announced_is_waited_for_and_nothing_else_is(targets):
    async def ask(engine, text, after):
        with engine.expecting():
            await asyncio.sleep(after)
            return await engine.read([targets[0]], text)

    async def several(engine, *after):
        return await asyncio.gather(*(ask(engine, f"{delay} {after}", delay) for delay in after))

    engine = engine_of(wait_s=30.0, gap_s=0.001)
    engine.start()
    asyncio.run(engine.read(targets, "load everything first"))
    before = engine.forwards
    runs = asyncio.run(several(engine, 0.0, 0.2, 0.4))
    assert {run.batch for run in runs} == {3}
    assert engine.forwards == before + 1
    engine._gap_s = 1000.0  # whoever waited for company now would wait for ever
    engine._wait_s = 1000.0
    alone = asyncio.run(asyncio.wait_for(several(engine, 0.0), 60))
    assert alone[0].batch == 1
    engine.stop()


def test_a_long_prompt_in_chunks_equals_the_whole(monkeypatch, engine, tiny, targets):
    monkeypatch.setattr("app.live.engine.CHUNK", 16)
    monkeypatch.setattr(forward.read_long, "__defaults__", (16,))
    run = asyncio.run(engine.read(targets, TEXT[0].text, predict=True))
    assert engine.forwards == -(-len(run.token_ids) // 16) > 3
    for target in targets:
        check(run, tiny, target, TEXT[0].text)
    predictions(run, tiny, targets[0], TEXT[0].text)


def predictions(run, tiny, target, text):
    ids, _, _, told = by_hand(tiny, target, text)
    found = run.predictions
    assert np.isnan(found.logprob[0])
    np.testing.assert_allclose(found.logprob[1:], told[:-1].gather(1, ids[1:, None])[:, 0], atol=1e-4)
    np.testing.assert_allclose(found.entropy, -(told.exp() * told).sum(1), atol=1e-3)
    np.testing.assert_allclose(found.top_logprobs, told.topk(5).values, atol=1e-4)
    gathered = told.gather(1, torch.from_numpy(found.top_ids).long())
    np.testing.assert_allclose(found.top_logprobs, gathered, atol=1e-4)


def test_predictions_are_the_models_own_and_come_in_blocks_of_positions(monkeypatch, engine, tiny, targets):
    monkeypatch.setattr(forward, "LOGITS", 3 * 49152)
    run = asyncio.run(engine.read(targets[:1], "The river Seine runs through Paris.", predict=True))
    predictions(run, tiny, targets[0], "The river Seine runs through Paris.")


def test_what_is_known_is_not_asked_again(engine, targets):
    async def ask():
        first = await engine.read(targets[:1], "Paris")
        assert engine.forwards == 1
        assert await engine.read(targets[:1], "Paris") is first
        both = await engine.read(targets[:2], "Paris")
        assert (engine.forwards, set(both.readings)) == (2, {"rev0", "rev1"})
        assert both.readings["rev0"] is first.readings["rev0"]
        told = await engine.read(targets[:2], "Paris", predict=True)
        assert (engine.forwards, set(told.readings)) == (3, {"rev0", "rev1"})
        assert told.predictions is not None
        await engine.read(targets[1:2], "Paris", predict=True)
        assert engine.forwards == 3

    asyncio.run(ask())


def test_the_cache_forgets_what_was_used_longest_ago():
    def run(n):
        reading = Reading(np.zeros(n, np.int32), np.zeros(n, np.int32), np.zeros(n, np.float32), None)
        return PromptRun([1], ["a"], [True], {"r": reading})

    cache = Cache(3000)
    for text in "abc":
        cache.add(("p", text, False), run(60))
    assert cache.get(("p", "a", False)) is not None
    cache.add(("p", "d", False), run(60))
    assert [cache.get(("p", text, False)) is not None for text in "abcd"] == [True, False, True, True]


def slow(engine):
    """Steps that hold the engine until the second event is set."""
    begun, go = threading.Event(), threading.Event()

    def steps(_subject, _probes):
        begun.set()
        go.wait(300)
        yield "done"

    return begun, go, steps


def test_more_than_may_wait_are_refused_at_once_and_the_others_answered(targets):
    engine = engine_of(waiting=3)
    engine.start()
    begun, go, steps = slow(engine)

    async def ask():
        async def hold():
            return [item async for item in engine.stream(targets[:1], steps)]

        holding = asyncio.create_task(hold())
        await asyncio.to_thread(begun.wait, 20)
        waiting = [asyncio.create_task(engine.read(targets[:1], f"text {n}")) for n in range(2)]
        await asyncio.sleep(0.05)
        with pytest.raises(EngineBusy, match="3 requests are waiting") as refused:
            await engine.read(targets[:1], "one more")
        assert refused.value.detail["retry_after"] >= 1
        go.set()
        assert await holding == ["done"]
        assert len(await asyncio.gather(*waiting)) == 2
        assert engine.pending == 0

    asyncio.run(ask())
    engine.stop()


def test_what_nobody_waits_for_is_not_run(targets):
    engine = engine_of()
    engine.start()
    begun, go, steps = slow(engine)

    async def ask():
        async def hold():
            return [item async for item in engine.stream(targets[:1], steps)]

        holding = asyncio.create_task(hold())
        await asyncio.to_thread(begun.wait, 20)
        left = asyncio.create_task(engine.read(targets[:1], "nobody waits"))
        await asyncio.sleep(0.05)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        before = engine.forwards
        go.set()
        await holding
        await engine.read(targets[:1], "somebody waits")
        assert engine.forwards == before + 2  # the step that held the engine, and the prompt somebody waited for
        assert engine.pending == 0

    asyncio.run(ask())
    engine.stop()


def test_a_stream_that_is_left_ends_and_others_run_between_its_steps(engine, targets):
    ended = threading.Event()

    def steps(subject, probes):
        try:
            assert subject.name == "tiny"
            assert [probe.sae.config.n_latents for probe in probes] == [40, 40]
            yield from range(10_000)
        finally:
            ended.set()

    async def ask():
        seen = []
        stream = engine.stream(targets[:2], steps)
        async for number in stream:
            seen.append(number)
            if number == 5:
                run = await engine.read(targets[:1], "between the steps")
                assert run.readings["rev0"].value.size
            if number >= 8:
                break
        await stream.aclose()
        assert seen == list(range(9))
        assert await asyncio.to_thread(ended.wait, 20)
        await engine.read(targets[:1], "after")
        assert engine.pending == 0

    asyncio.run(ask())


def test_an_error_of_a_stream_reaches_its_reader_and_no_other(engine, targets):
    def steps(_subject, _probes):
        yield 1
        raise TooLarge("no more")

    async def ask():
        stream = engine.stream(targets[:1], steps)
        assert await anext(stream) == 1
        with pytest.raises(TooLarge, match="no more"):
            await anext(stream)
        assert (await engine.read(targets[:1], "still here")).readings

    asyncio.run(ask())


def test_one_bad_request_spoils_no_other_of_its_batch(tiny, targets, tmp_path):
    gone = Target("gone", "tiny", targets[0].subject_path, tmp_path / "nowhere")
    engine = engine_of(wait_s=0.5, gap_s=0.2, max_tokens=64)
    engine.start()

    async def ask():
        return await asyncio.gather(
            engine.read(targets[:1], "fine"), engine.read([gone], "not there"),
            engine.read(targets[:1], "too long " * 64), engine.read(targets[1:2], "fine too"),
            return_exceptions=True,
        )  # fmt: skip

    fine, missing, long, too = asyncio.run(ask())
    engine.stop()
    check(fine, tiny, targets[0], "fine")
    check(too, tiny, targets[1], "fine too")
    assert isinstance(missing, InvalidSAE)
    assert isinstance(long, TextTooLong)


def test_stopping_tells_all_who_wait(targets):
    engine = engine_of()
    engine.start()
    begun, go, steps = slow(engine)

    async def ask():
        async def hold():
            return [item async for item in engine.stream(targets[:1], steps)]

        holding = asyncio.create_task(hold())
        await asyncio.to_thread(begun.wait, 20)
        waiting = asyncio.create_task(engine.read(targets[:1], "too late"))
        await asyncio.sleep(0.05)
        stopping = asyncio.create_task(asyncio.to_thread(engine.stop))
        await asyncio.sleep(0.05)
        go.set()
        await stopping
        for task in (holding, waiting):
            with pytest.raises(EngineStopped):
                await task
        with pytest.raises(EngineStopped):
            await engine.read(targets[:1], "later still")

    asyncio.run(ask())


def test_memory_stays_within_its_budget_and_what_was_used_last_stays(tiny, targets):
    subject, sae = size_of(tiny), size_of(read_sae(targets[0].sae_path))
    engine = engine_of(budget=subject + 2 * sae + sae // 2)
    engine.start()
    residents = engine.residents

    async def ask(*numbers):
        await engine.read([targets[n] for n in numbers], f"text {numbers} {residents.loads}")
        assert residents.nbytes <= subject + 2 * sae + sae // 2
        return residents.loads

    assert [asyncio.run(ask(n)) for n in (0, 1, 0, 2, 0, 1)] == [2, 3, 3, 4, 4, 5]
    with pytest.raises(TooLarge, match="fewer SAEs at once, or raise SAESCOPE_ENGINE_GB"):
        asyncio.run(ask(0, 1, 2))
    assert asyncio.run(ask(0, 1)) in (5, 6)
    engine.stop()
    small = engine_of(budget=subject // 2)
    small.start()
    with pytest.raises(TooLarge, match=r"tiny takes .* raise SAESCOPE_ENGINE_GB"):
        asyncio.run(small.read(targets[:1], "no room at all"))
    small.stop()


def test_when_memory_runs_out_the_prompts_are_read_one_by_one(monkeypatch, tiny, targets):
    whole = forward.read_batch

    def scarce(subject, rows, probes, predict):
        if sum(map(len, rows)) > 40:
            raise torch.OutOfMemoryError("out of memory")
        return whole(subject, rows, probes, predict)

    monkeypatch.setattr("app.live.engine.read_batch", scarce)
    engine = engine_of(wait_s=0.5, gap_s=0.2)
    engine.start()

    async def ask():
        texts = ["Paris is here", "The cat sat", "word " * 60]
        return await asyncio.gather(*(engine.read(targets[:1], text) for text in texts), return_exceptions=True)

    one, two, three = asyncio.run(ask())
    engine.stop()
    check(one, tiny, targets[0], "Paris is here")
    check(two, tiny, targets[0], "The cat sat")
    assert isinstance(three, OutOfMemory)
    assert "shorter" in three.message
