"""`OpenAI`: prompts go as arrays, with explicit nulls."""

import asyncio

import openai
import pytest

SECRET = "a prompt that no error may repeat"


def test_invoke(completions, engine, canary):
    prompt = f"{canary} the river"
    assert completions(max_tokens=12).invoke(prompt) == engine.text(prompt, 12)


def test_stream(completions, engine):
    parts = list(completions(max_tokens=12).stream("the mountain"))
    assert len(parts) > 5, "the answer came in one piece"
    assert "".join(parts) == engine.text("the mountain", 12)


def test_async(completions, engine):
    async def ask():
        model = completions(max_tokens=8)
        return await model.ainvoke("the river"), "".join([part async for part in model.astream("the river")])

    assert asyncio.run(ask()) == (engine.text("the river", 8),) * 2


def test_batch(completions, engine):
    prompts = ["the river", "a quiet harbour", "the garden"]
    generated = completions(max_tokens=8).generate(prompts)
    texts = [generation.text for [generation] in generated.generations]
    assert texts == [engine.text(prompt, 8) for prompt in prompts]


def test_stop(completions, engine):
    words = engine.text("the river", 8).split()
    assert completions(max_tokens=8).invoke("the river", stop=[words[3]]).split() == words[:3]


@pytest.mark.parametrize(
    ("members", "kind", "code", "param"),
    [
        ({"api_key": "sk-wrong"}, openai.AuthenticationError, "invalid_api_key", None),
        ({"model": "nope"}, openai.NotFoundError, "model_not_found", None),
        ({"top_p": 7}, openai.BadRequestError, "invalid_request", "top_p"),
    ],
    ids=["key", "model", "member"],
)
def test_refusals(completions, members, kind, code, param):
    with pytest.raises(kind) as raised:
        completions(**members).invoke(SECRET)
    assert (raised.value.code, raised.value.param) == (code, param)
    assert SECRET not in str(raised.value)
