"""The confidential API: the SDK takes a lock and seals to the key that comes with it; the gateway cannot open it."""

import asyncio
import json

import httpx
import pytest
from atoma_sdk import crypto_utils, models
from conftest import asked
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pydantic import BaseModel

SECRET = "a prompt that no error may repeat"


def test_chat(sdk, engine, canary):
    message = f"{canary} the river"
    answer = sdk.confidential_chat.create(**asked(message, max_tokens=12))
    assert answer.choices[0].message.content == engine.reply(message, 12)
    assert answer.usage.completion_tokens == 12


def test_chat_in_a_stream(sdk, engine, canary):
    message = f"{canary} the mountain"
    with sdk.confidential_chat.create_stream(**asked(message, max_tokens=12)) as events:
        parts = [choice.delta.content or "" for event in events if event for choice in event.data.choices]
    assert len(parts) > 5, "the answer came in one piece"
    assert "".join(parts) == engine.reply(message, 12)


def test_async_chat(sdk_for, api_key, engine):
    # The SDK takes the lock with a call that blocks the event loop; the gateway is another process.
    async def ask():
        async with sdk_for(api_key) as sdk:
            whole = await sdk.confidential_chat.create_async(**asked("the garden", max_tokens=12))
            events = await sdk.confidential_chat.create_stream_async(**asked("the garden", max_tokens=12))
            async with events:
                parts = [choice.delta.content or "" async for event in events if event for choice in event.data.choices]
            return whole.choices[0].message.content, "".join(parts)

    assert asyncio.run(ask()) == (engine.reply("the garden", 12),) * 2


def test_embeddings(sdk, engine, canary):
    answer = sdk.confidential_embeddings.create(model="tiny", input=f"{canary} the river")
    assert answer.data[0].embedding == pytest.approx(engine.vectors(f"{canary} the river")[0], abs=1e-6)


def test_images(sdk, pictures, canary):
    prompt = f"{canary} a river"
    answer = sdk.confidential_images.generate(model="picture", prompt=prompt, response_format="url", size="256x256")
    assert [image.url for image in answer.data] == [image["url"] for image in pictures(prompt, size="256x256")]


def test_many_calls_each_take_a_lock(sdk, engine):
    for word in ("river", "garden", "harbour", "meadow"):
        answer = sdk.confidential_chat.create(**asked(f"the {word}", max_tokens=4))
        assert answer.choices[0].message.content == engine.reply(f"the {word}", 4)


def test_completions(sdk, engine, canary, api_key, base_url):
    # This SDK has no class for them: its own way to seal, and a request by hand.
    class Asked(BaseModel):
        model: str = "tiny"
        prompt: str = f"{canary} the river"
        max_tokens: int = 8
        temperature: int = 0

    private = X25519PrivateKey.generate()
    node_key, salt, sealed = crypto_utils.encrypt_message(sdk, private, Asked(), "tiny")
    answer = httpx.post(
        f"{base_url}/confidential/completions",
        headers={"authorization": f"Bearer {api_key}"},
        json=sealed.model_dump(mode="json", exclude_none=True),
    )
    assert answer.status_code == 200 and engine.text(Asked().prompt, 8) not in answer.text
    opened = crypto_utils.decrypt_message(private, node_key, salt, models.ConfidentialComputeResponse(**answer.json()))
    assert json.loads(opened)["choices"][0]["text"] == engine.text(Asked().prompt, 8)

    # A lock serves once.
    again = httpx.post(
        f"{base_url}/confidential/completions",
        headers={"authorization": f"Bearer {api_key}"},
        json=sealed.model_dump(mode="json", exclude_none=True),
    )
    assert (again.status_code, again.json()["error"]["code"]) == (423, "lock_not_found")


def refusal(call):
    with pytest.raises(models.APIError) as raised:
        call()
    assert SECRET not in str(raised.value)
    return raised.value


def test_a_refused_lock(sdk, sdk_for):
    # Whatever a lock is refused with, this SDK calls it 500, and quotes the answer.
    with sdk_for("sk-wrong") as stranger:
        error = refusal(lambda: stranger.confidential_chat.create(**asked(SECRET)))
    assert error.status_code == 500 and "invalid_api_key" in error.body
    error = refusal(lambda: sdk.confidential_chat.create(**asked(SECRET) | {"model": "nope"}))
    assert error.status_code == 500 and "model_not_found" in error.body


def test_what_only_the_node_can_read_and_refuse(sdk):
    error = refusal(lambda: sdk.confidential_chat.create(**asked(SECRET, top_p=7)))
    assert error.status_code == 400 and "invalid_request" in error.body
