"""A caller that leaves takes the engine's work along, whatever the phase."""

import asyncio

import openai
import pytest
from engine import ENGINE_LOOKS_EVERY, STOPS_WITHIN, within

# Some ten seconds of work for the engine.
LONG = 24_000


@pytest.mark.usefixtures("quiet")
def test_in_the_middle_of_a_stream(complete, engine):
    stream = complete("the river", max_tokens=LONG, stream=True)
    for _, _ in zip(range(5), stream):
        pass
    assert engine.busy()
    stream.close()
    assert within(STOPS_WITHIN, lambda: not engine.busy()), "the engine went on"


@pytest.mark.usefixtures("quiet")
def test_waiting_for_a_unary_answer(settings, engine):
    async def leave():
        async with openai.AsyncOpenAI(**settings) as client:
            asked = client.completions.create(model="tiny", prompt="the river", temperature=0, max_tokens=LONG)
            task = asyncio.create_task(asked)
            assert await asyncio.to_thread(within, 10, engine.busy), "the request never arrived"
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    before = engine.cancelled()
    asyncio.run(leave())
    limit = STOPS_WITHIN + ENGINE_LOOKS_EVERY
    assert within(limit, lambda: engine.cancelled() > before), "the engine went on"


@pytest.mark.usefixtures("quiet")
def test_many_streams_at_once(settings, engine):
    async def read_and_leave(client):
        stream = await client.completions.create(
            model="tiny", prompt="the river", temperature=0, max_tokens=3_000, stream=True
        )
        async for _ in stream:
            break
        await stream.close()

    async def all_of_them():
        async with openai.AsyncOpenAI(**settings) as client:
            await asyncio.gather(*(read_and_leave(client) for _ in range(20)))

    asyncio.run(all_of_them())
    assert within(STOPS_WITHIN, lambda: not engine.busy()), "the engine went on"


@pytest.mark.usefixtures("quiet")
def test_others_are_not_disturbed(complete, engine):
    leaving = complete("the river", max_tokens=LONG, stream=True)
    staying = complete("a quiet harbour", max_tokens=200, stream=True)
    next(iter(leaving))
    first = next(iter(staying)).choices[0].text
    leaving.close()
    rest = "".join(chunk.choices[0].text for chunk in staying)
    assert first + rest == engine.text("a quiet harbour", 200)
