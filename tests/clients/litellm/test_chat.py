"""`completion` and `embedding`, as to any server that speaks OpenAI's contract."""

import asyncio
import json

import litellm
import pytest

MODEL = "openai/tiny"
SECRET = "a prompt that no error may repeat"
TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "parameters": {
            "type": "object",
            "properties": {"way": {"type": "string", "enum": ["north", "south"]}},
            "required": ["way"],
            "additionalProperties": False,
        },
    },
}


def asked(message, **members):
    return {"model": MODEL, "messages": [{"role": "user", "content": message}], **members}


def test_unary(settings, engine, canary):
    message = f"{canary} the river"
    answer = litellm.completion(**asked(message, max_tokens=12), **settings)
    assert answer.choices[0].message.content == engine.reply(message, 12)
    assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("length", 12)


def test_stream(settings, engine):
    parts = litellm.completion(**asked("the mountain", max_tokens=12, stream=True), **settings)
    texts = [part.choices[0].delta.content or "" for part in parts]
    assert len(texts) > 5, "the answer came in one piece"
    assert "".join(texts) == engine.reply("the mountain", 12)


def test_async(settings, engine):
    async def ask():
        parts = await litellm.acompletion(**asked("the garden", max_tokens=8, stream=True), **settings)
        return "".join([part.choices[0].delta.content or "" async for part in parts])

    assert asyncio.run(ask()) == engine.reply("the garden", 8)


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
def test_a_tool_call(settings, stream):
    answer = litellm.completion(**asked("please call", max_tokens=200, tools=[TOOL], stream=stream), **settings)
    if stream:
        answer = litellm.stream_chunk_builder(list(answer))
    [call] = answer.choices[0].message.tool_calls
    assert call.function.name == "look"
    assert json.loads(call.function.arguments)["way"] in ("north", "south")
    assert answer.choices[0].finish_reason == "tool_calls"


def test_embeddings(settings, engine):
    members = {name: value for name, value in settings.items() if name != "temperature"}
    texts = ["the river", "a quiet harbour"]
    answer = litellm.embedding(model=MODEL, input=texts, encoding_format="float", **members)
    assert [item["embedding"] for item in answer.data] == [
        pytest.approx(vector, abs=1e-6) for vector in engine.vectors(texts)
    ]


@pytest.mark.parametrize(
    ("members", "kind", "status"),
    [
        ({"api_key": "sk-wrong"}, litellm.AuthenticationError, 401),
        ({"model": "openai/nope"}, litellm.NotFoundError, 404),
        ({"top_p": 7}, litellm.BadRequestError, 400),
    ],
    ids=["key", "model", "member"],
)
def test_refusals(settings, members, kind, status):
    with pytest.raises(kind) as raised:
        litellm.completion(**{**asked(SECRET), **settings, **members})
    assert raised.value.status_code == status
    assert SECRET not in str(raised.value)
