"""`text_completion`, under the provider's name that LiteLLM has for OpenAI's completions elsewhere."""

import asyncio

import litellm
import pytest

MODEL = "text-completion-openai/tiny"
SECRET = "a prompt that no error may repeat"


def test_unary(settings, engine, canary):
    prompt = f"{canary} the river"
    answer = litellm.text_completion(model=MODEL, prompt=prompt, max_tokens=12, **settings)
    [choice] = answer.choices
    assert (choice.text, choice.finish_reason) == (engine.text(prompt, 12), "length")
    assert answer.usage.prompt_tokens == len(engine.tokens(prompt))
    assert answer.usage.completion_tokens == 12


def test_stream(settings, engine):
    parts = litellm.text_completion(model=MODEL, prompt="the mountain", max_tokens=12, stream=True, **settings)
    texts = [part.choices[0].text or "" for part in parts]
    assert len(texts) > 5, "the answer came in one piece"
    assert "".join(texts) == engine.text("the mountain", 12)


def test_async(settings, engine):
    async def ask():
        answer = await litellm.atext_completion(model=MODEL, prompt="the river", max_tokens=8, **settings)
        return answer.choices[0].text

    assert asyncio.run(ask()) == engine.text("the river", 8)


@pytest.mark.parametrize(
    ("members", "kind", "code"),
    [
        ({"api_key": "sk-wrong"}, litellm.AuthenticationError, 401),
        ({"model": "text-completion-openai/nope"}, litellm.NotFoundError, 404),
        ({"top_p": 7}, litellm.BadRequestError, 400),
    ],
    ids=["key", "model", "member"],
)
def test_refusals(settings, members, kind, code):
    with pytest.raises(kind) as raised:
        litellm.text_completion(**{"model": MODEL, "prompt": SECRET, **settings, **members})
    assert raised.value.status_code == code
    assert SECRET not in str(raised.value)
