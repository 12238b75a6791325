"""The plain API as the seed's SDK calls it."""

import asyncio

import pytest
from atoma_sdk import models
from conftest import asked

SECRET = "a prompt that no error may repeat"


def test_chat(sdk, engine, canary):
    message = f"{canary} the river"
    answer = sdk.chat.create(**asked(message, max_tokens=12))
    assert answer.choices[0].message.content == engine.reply(message, 12)
    assert answer.usage.completion_tokens == 12


def test_chat_in_a_stream(sdk, engine):
    with sdk.chat.create_stream(**asked("the mountain", max_tokens=12)) as events:
        parts = [choice.delta.content or "" for event in events for choice in event.data.choices]
    assert len(parts) > 5, "the answer came in one piece"
    assert "".join(parts) == engine.reply("the mountain", 12)


def test_async_chat(sdk_for, api_key, engine):
    async def ask():
        async with sdk_for(api_key) as sdk:
            return (await sdk.chat.create_async(**asked("the garden", max_tokens=8))).choices[0].message.content

    assert asyncio.run(ask()) == engine.reply("the garden", 8)


def test_embeddings(sdk, engine):
    answer = sdk.embeddings.create(model="tiny", input_="the river")
    assert answer.data[0].embedding == pytest.approx(engine.vectors("the river")[0], abs=1e-6)


def test_models(sdk):
    assert sorted(model.id for model in sdk.models_.models_list().data) == ["picture", "tiny"]


def test_health(sdk):
    assert sdk.health.health() is not None


def test_refusals(sdk, sdk_for):
    with sdk_for("sk-wrong") as stranger, pytest.raises(models.APIError) as raised:
        stranger.chat.create(**asked(SECRET))
    assert raised.value.status_code == 401 and "invalid_api_key" in raised.value.body
    for status, code, members in [(404, "model_not_found", {"model": "nope"}), (400, "invalid_request", {"top_p": 7})]:
        with pytest.raises(models.APIError) as raised:
            sdk.chat.create(**{**asked(SECRET), **members})
        assert raised.value.status_code == status and code in raised.value.body
        assert SECRET not in raised.value.body
