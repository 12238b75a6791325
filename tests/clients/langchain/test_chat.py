"""`ChatOpenAI` and `OpenAIEmbeddings`."""

import asyncio
from typing import Literal

import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel

SECRET = "a prompt that no error may repeat"


@tool
def look(way: Literal["north", "south"]) -> str:
    """Looks where it is told to."""
    return way


class Way(BaseModel):
    """Where to go."""

    way: Literal["north", "south"]


def test_invoke(chat, engine, canary):
    message = f"{canary} the river"
    answer = chat(max_tokens=12).invoke(message)
    assert answer.content == engine.reply(message, 12)
    assert answer.response_metadata["finish_reason"] == "length"
    assert answer.usage_metadata["output_tokens"] == 12


def test_stream(chat, engine):
    parts = list(chat(max_tokens=12, stream_usage=True).stream("the mountain"))
    assert len(parts) > 5, "the answer came in one piece"
    assert "".join(part.content for part in parts) == engine.reply("the mountain", 12)
    assert sum(part.usage_metadata["output_tokens"] for part in parts if part.usage_metadata) == 12


def test_async(chat, engine):
    async def ask():
        return "".join([part.content async for part in chat(max_tokens=8).astream("the garden")])

    assert asyncio.run(ask()) == engine.reply("the garden", 8)


def test_a_tool_call_and_its_result(chat, engine):
    model = chat(max_tokens=200).bind_tools([look], tool_choice="required")
    answer = model.invoke("please call")
    [call] = answer.tool_calls
    assert call["name"] == "look" and call["args"]["way"] in ("north", "south")
    streamed = None
    for part in model.stream("please call"):
        streamed = part if streamed is None else streamed + part
    assert [(call["name"], call["args"]) for call in streamed.tool_calls] == [(call["name"], call["args"])]
    talk = [
        SystemMessage("you are terse"),
        HumanMessage("please call"),
        AIMessage("", tool_calls=[call]),
        ToolMessage("a mountain", tool_call_id=call["id"]),
        HumanMessage("and beyond the village"),
    ]
    # The answer goes on from the last message.
    assert chat(max_tokens=8).invoke(talk).content == engine.reply("beyond the village", 8)


def test_structured_output(chat):
    assert chat(max_tokens=200).with_structured_output(Way).invoke("the river").way in ("north", "south")


def test_embeddings(embeddings, engine):
    texts = ["the river", "a quiet harbour"]
    vectors = embeddings().embed_documents(texts)
    assert vectors == [pytest.approx(vector, abs=1e-6) for vector in engine.vectors(texts)]
    assert embeddings().embed_query(texts[0]) == pytest.approx(vectors[0], abs=1e-6)


@pytest.mark.parametrize(
    ("members", "kind", "code"),
    [
        ({"api_key": "sk-wrong"}, openai.AuthenticationError, "invalid_api_key"),
        ({"model": "nope"}, openai.NotFoundError, "model_not_found"),
        ({"top_p": 7}, openai.BadRequestError, "invalid_request"),
    ],
    ids=["key", "model", "member"],
)
def test_refusals(chat, members, kind, code):
    with pytest.raises(kind) as raised:
        chat(**members).invoke(SECRET)
    assert raised.value.code == code
    assert SECRET not in str(raised.value)
