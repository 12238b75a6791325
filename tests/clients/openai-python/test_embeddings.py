"""Embeddings: the numbers are the engine's own."""

import asyncio
import base64
import struct

import openai
import pytest

SECRET = "a prompt that no error may repeat"


def embed(client, input, **members):
    return client.embeddings.create(model="tiny", input=input, **members)


def close(vector):
    return pytest.approx(vector, abs=1e-6)


@pytest.mark.parametrize("form", ["string", "strings", "tokens", "token arrays"])
@pytest.mark.parametrize("encoding", ["float", "base64", None], ids=str)
def test_input_forms(client, engine, canary, form, encoding):
    texts = [f"{canary} the river", "a quiet harbour"]
    input = {
        "string": texts[0],
        "strings": texts,
        "tokens": engine.tokens(texts[0]),
        "token arrays": [engine.tokens(text) for text in texts],
    }[form]
    texts = texts if form in ("strings", "token arrays") else texts[:1]
    answer = embed(client, input, **({"encoding_format": encoding} if encoding else {}))
    assert (answer.object, answer.model) == ("list", "tiny")
    assert [(item.index, item.object) for item in answer.data] == [(i, "embedding") for i in range(len(texts))]
    for item, told in zip(answer.data, engine.vectors(texts), strict=True):
        vector = item.embedding
        # Asked for base64 by name, the SDK leaves it as it is; not asked, it asks for it by itself and decodes.
        if encoding == "base64":
            raw = base64.b64decode(vector, validate=True)
            vector = struct.unpack(f"<{len(raw) // 4}f", raw)
        assert list(vector) == close(told)
    tokens = sum(len(engine.tokens(text)) for text in texts)
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (tokens, tokens)


def test_async(settings, engine):
    async def ask():
        async with openai.AsyncOpenAI(**settings) as client:
            return (await embed(client, "the river")).data[0].embedding

    assert asyncio.run(ask()) == close(engine.vectors("the river")[0])


def refusal(call, kind):
    with pytest.raises(kind) as raised:
        call()
    error = raised.value
    assert error.request_id and SECRET not in str(error) and SECRET not in error.response.text
    return error


def test_a_wrong_key(settings):
    with openai.OpenAI(**settings | {"api_key": "sk-wrong"}) as client:
        assert refusal(lambda: embed(client, SECRET), openai.AuthenticationError).code == "invalid_api_key"


def test_an_unknown_model(client):
    error = refusal(lambda: client.embeddings.create(model="nope", input=SECRET), openai.NotFoundError)
    assert error.code == "model_not_found"


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("input", None),
        ("input", []),
        ("input", 5),
        ("input", [SECRET, 5]),
        ("input", [True]),
        ("input", {"text": SECRET}),
        ("encoding_format", "hex"),
        ("dimensions", 0),
        ("dimensions", "all"),
        # What this engine would only ignore.
        ("dimensions", 4),
        ("model", None),
    ],
)
def test_a_member_out_of_its_range(client, param, value):
    body = {"model": "tiny", "input": SECRET, param: value}
    error = refusal(lambda: client.post("/embeddings", body=body, cast_to=object), openai.BadRequestError)
    assert (error.code, error.param.partition("[")[0]) == ("invalid_request", param)
