"""Conversations: what a caller gets is what the engine says, sealed on the way or not."""

import asyncio
import json
import math

import openai
import pytest
from engine import WORDS

SECRET = "a prompt that no error may repeat"
TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Looks where it is told to.",
        "parameters": {
            "type": "object",
            "properties": {"way": {"type": "string", "enum": ["north", "south"]}},
            "required": ["way"],
            "additionalProperties": False,
        },
    },
}


def test_unary(chat, engine, canary):
    message = f"{canary} the river"
    completion = chat(message, max_tokens=12)
    assert (completion.object, completion.model) == ("chat.completion", "tiny")
    assert completion.id and completion.created > 0
    [choice] = completion.choices
    assert (choice.index, choice.finish_reason, choice.message.role) == (0, "length", "assistant")
    assert choice.message.content == engine.reply(message, 12)
    assert not choice.message.tool_calls and choice.logprobs is None
    usage = completion.usage
    assert (usage.completion_tokens, usage.total_tokens) == (12, usage.prompt_tokens + 12)
    assert usage.prompt_tokens == len(engine.tokens(f" user {message}"))


def test_stream(chat, engine, canary):
    message = f"{canary} the mountain"
    chunks = list(chat(message, max_tokens=20, stream=True))
    assert len(chunks) > 10, "the answer came in one piece"
    assert {(chunk.id, chunk.object, chunk.model) for chunk in chunks} == {
        (chunks[0].id, "chat.completion.chunk", "tiny")
    }
    assert all(len(chunk.choices) == 1 and chunk.usage is None for chunk in chunks)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == engine.reply(message, 20)
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert reasons[-1] == "length" and not any(reasons[:-1])


def test_stream_with_usage(chat, engine):
    *chunks, last = chat("the river", max_tokens=8, stream=True, stream_options={"include_usage": True})
    assert last.choices == []
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (len(engine.tokens(" user the river")), 8)
    assert last.usage.total_tokens == last.usage.prompt_tokens + 8
    assert all(chunk.usage is None for chunk in chunks)


def test_stream_helper(client, engine):
    told = engine.reply("the river", 8)
    # The helper wants answers that end by themselves.
    asked = {"model": "tiny", "messages": [{"role": "user", "content": "the river"}], "temperature": 0}
    with client.chat.completions.stream(**asked, stop=told.split()[6]) as stream:
        parts = [event.delta for event in stream if event.type == "content.delta"]
        whole = stream.get_final_completion()
    assert "".join(parts) == whole.choices[0].message.content
    assert whole.choices[0].message.content.split() == told.split()[:6]


def test_async(settings, engine):
    async def ask():
        async with openai.AsyncOpenAI(**settings) as client:
            asked = {"model": "tiny", "temperature": 0, "max_tokens": 12}
            messages = [{"role": "user", "content": "the garden"}]
            whole = await client.chat.completions.create(**asked, messages=messages)
            parts = await client.chat.completions.create(**asked, messages=messages, stream=True)
            text = "".join([part.choices[0].delta.content or "" async for part in parts])
            return whole.choices[0].message.content, text

    assert asyncio.run(ask()) == (engine.reply("the garden", 12),) * 2


def test_40_at_once_get_their_own_answers(settings, engine):
    async def ask(client, message):
        parts = await client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": message}], temperature=0, max_tokens=8, stream=True
        )
        return "".join([part.choices[0].delta.content or "" async for part in parts])

    async def ask_all():
        async with openai.AsyncOpenAI(**settings) as client:
            return await asyncio.gather(*(ask(client, f"tell me of {word}") for word in WORDS[:40]))

    answers = asyncio.run(ask_all())
    assert len(set(answers)) == 40
    assert answers == [engine.reply(f"tell me of {word}", 8) for word in WORDS[:40]]


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
def test_all_roles_and_content_parts(chat, engine, stream):
    messages = [
        {"role": "system", "content": "you are terse", "name": "rules"},
        {"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "text", "text": "north"}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"way":"north"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "a mountain"},
        {"role": "assistant", "content": "there is a mountain"},
        {"role": "user", "content": "and beyond the village"},
    ]
    answer = chat(messages, max_tokens=8, stream=stream)
    if stream:
        text = "".join(chunk.choices[0].delta.content or "" for chunk in answer)
    else:
        text = answer.choices[0].message.content
    assert text == engine.reply(messages, 8)


def test_max_completion_tokens(chat, engine):
    [choice] = chat("the river", max_completion_tokens=5).choices
    assert (choice.message.content, choice.finish_reason) == (engine.reply("the river", 5), "length")


def test_logprobs(chat):
    [choice] = chat("the river", max_tokens=6, logprobs=True, top_logprobs=2).choices
    content = choice.logprobs.content
    assert "".join(token.token for token in content) == choice.message.content and len(content) == 6
    # The tiny model's likeliest next token always has this chance.
    assert [token.logprob for token in content] == pytest.approx([math.log(0.7)] * 6, abs=0.01)
    for token in content:
        assert bytes(token.bytes).decode() == token.token
        assert len(token.top_logprobs) == 2 and token.top_logprobs[0].token == token.token


def test_logprobs_in_a_stream(chat):
    chunks = list(chat("the river", max_tokens=6, logprobs=True, stream=True))
    tokens = [token.token for chunk in chunks if (found := chunk.choices[0].logprobs) for token in found.content]
    assert "".join(tokens) == "".join(chunk.choices[0].delta.content or "" for chunk in chunks) != ""


def test_two_choices(chat, engine):
    completion = chat("the river", max_tokens=6, n=2)
    assert [choice.index for choice in completion.choices] == [0, 1]
    assert {choice.message.content for choice in completion.choices} == {engine.reply("the river", 6)}


def test_stop(chat, engine):
    words = engine.reply("the river", 8).split()
    for stop in (words[3], ["never said", words[3]]):
        [choice] = chat("the river", max_tokens=8, stop=stop).choices
        assert (choice.message.content.split(), choice.finish_reason) == (words[:3], "stop")


@pytest.mark.parametrize("choice", ["required", "auto", {"type": "function", "function": {"name": "look"}}], ids=str)
def test_a_tool_call(chat, engine, choice):
    told = engine.chat("please call", 200, tools=[TOOL])["message"]["tool_calls"]
    [answer] = chat("please call", max_tokens=200, tools=[TOOL], tool_choice=choice).choices
    assert answer.finish_reason == "tool_calls"
    [call] = answer.message.tool_calls
    assert (call.type, call.function.name) == ("function", "look") and call.id
    assert call.function.arguments == told[0]["function"]["arguments"]
    assert json.loads(call.function.arguments)["way"] in ("north", "south")


def test_a_tool_call_in_a_stream(chat, engine):
    told = engine.chat("please call", 200, tools=[TOOL])["message"]["tool_calls"]
    chunks = list(chat("please call", max_tokens=200, tools=[TOOL], stream=True))
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert len(calls) > 3, "the call came in one piece"
    assert (calls[0].function.name, calls[0].type) == ("look", "function") and calls[0].id
    assert {call.index for call in calls} == {0}
    assert "".join(call.function.arguments or "" for call in calls) == told[0]["function"]["arguments"]
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_tools_that_are_not_called(chat, engine):
    [choice] = chat("the river", max_tokens=5, tools=[TOOL], tool_choice="none").choices
    assert not choice.message.tool_calls
    assert choice.message.content == engine.chat("the river", 5, tools=[TOOL], tool_choice="none")["message"]["content"]


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
def test_a_json_schema(chat, engine, stream):
    schema = TOOL["function"]["parameters"]
    form = {"type": "json_schema", "json_schema": {"name": "way", "schema": schema, "strict": True}}
    answer = chat("the river", max_tokens=200, response_format=form, stream=stream)
    if stream:
        text = "".join(chunk.choices[0].delta.content or "" for chunk in answer)
    else:
        text = answer.choices[0].message.content
    assert text == engine.chat("the river", 200, response_format=form)["message"]["content"]
    assert json.loads(text)["way"] in ("north", "south")


def test_null_members_are_absent_members(chat, engine):
    nulls = dict.fromkeys(
        "frequency_penalty logit_bias logprobs max_completion_tokens n parallel_tool_calls presence_penalty"
        " response_format seed stop stream stream_options tool_choice tools top_logprobs top_p user".split()
    )
    completion = chat("the river", max_tokens=8, extra_body=nulls)
    assert completion.choices[0].message.content == engine.reply("the river", 8)


def test_emoji_whose_bytes_are_tokens(chat, engine):
    told = engine.reply("say emoji", 25)
    assert told.count("\U0001f600") == 5
    assert chat("say emoji", max_tokens=25).choices[0].message.content == told
    chunks = chat("say emoji", max_tokens=25, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == told


def refusal(call, kind):
    with pytest.raises(kind) as raised:
        call()
    error = raised.value
    assert isinstance(error.type, str) and error.message and error.request_id
    assert SECRET not in str(error) and SECRET not in error.response.text
    return error


def test_a_wrong_key(settings):
    with openai.OpenAI(**settings | {"api_key": "sk-wrong"}) as client:
        messages = [{"role": "user", "content": SECRET}]
        error = refusal(
            lambda: client.chat.completions.create(model="tiny", messages=messages), openai.AuthenticationError
        )
    assert error.code == "invalid_api_key"


def test_an_unknown_model(client):
    messages = [{"role": "user", "content": SECRET}]
    error = refusal(lambda: client.chat.completions.create(model="nope", messages=messages), openai.NotFoundError)
    assert error.code == "model_not_found"


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("messages", None),
        ("messages", []),
        ("messages", SECRET),
        ("messages", [SECRET]),
        ("messages", [{"role": "stranger", "content": SECRET}]),
        ("messages", [{"role": "user", "content": 5}]),
        ("model", None),
        ("temperature", 3),
        ("top_p", -1),
        ("n", 0),
        ("max_tokens", -1),
        ("max_completion_tokens", 1.5),
        ("logprobs", 5),
        ("top_logprobs", 21),
        ("stop", ["a", "b", "c", "d", "e"]),
        ("tools", {"type": "function"}),
        ("tools", [{"type": "function"}]),
        ("tool_choice", 5),
        ("response_format", "json"),
        ("stream_options", "usage"),
    ],
)
def test_a_member_out_of_its_range(client, param, value, stream):
    messages = [{"role": "user", "content": SECRET}]
    body = {"model": "tiny", "messages": messages, "max_completion_tokens": 1, "stream": stream, param: value}
    error = refusal(lambda: client.post("/chat/completions", body=body, cast_to=object), openai.BadRequestError)
    # Of an array the element may be named: `messages[0].role`.
    assert (error.code, error.param.partition("[")[0]) == ("invalid_request", param)
