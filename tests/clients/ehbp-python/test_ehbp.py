"""Encrypted HTTP bodies: discovery, unary, streams, errors, and keys that change."""

import asyncio

import ehbp
import httpx
import openai
import pytest
from conftest import sealed_sdk
from engine import within

SECRET = "a prompt that no error may repeat"


def ask(client, message, **members):
    messages = [{"role": "user", "content": message}]
    return client.chat.completions.create(model="tiny", messages=messages, temperature=0, **members)


def published(url):
    return httpx.get(f"{url}/.well-known/hpke-keys").content


def test_discovery(node_url):
    answer = httpx.get(f"{node_url}/.well-known/hpke-keys")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/ohttp-keys")
    document = answer.content
    assert len(document) == 41
    assert (document[:3].hex(), document[-6:].hex()) == ("000020", "000400010002")
    with ehbp.Client.discover(node_url) as client:
        assert client.server_identity is not None


def test_unary(client, engine, canary):
    message = f"{canary} the river"
    [choice] = ask(client, message, max_tokens=12).choices
    assert choice.message.content == engine.reply(message, 12)


def test_stream(client, engine, canary):
    message = f"{canary} the mountain"
    parts = [part.choices[0].delta.content or "" for part in ask(client, message, max_tokens=12, stream=True)]
    assert len(parts) > 5, "the answer came in one piece"
    assert "".join(parts) == engine.reply(message, 12)


def test_completions_and_embeddings(client, engine):
    completion = client.completions.create(model="tiny", prompt="the river", temperature=0, max_tokens=8)
    assert completion.choices[0].text == engine.text("the river", 8)
    vector = client.embeddings.create(model="tiny", input="the river").data[0].embedding
    assert vector == pytest.approx(engine.vectors("the river")[0], abs=1e-6)


def test_async(node_url, identity, engine):
    async def ask_it():
        transport = ehbp.AsyncEHBPTransport(identity)
        async with openai.AsyncOpenAI(
            base_url=f"{node_url}/v1", api_key="none", max_retries=0, http_client=httpx.AsyncClient(transport=transport)
        ) as client:
            parts = await ask(client, "the garden", max_tokens=8, stream=True)
            return "".join([part.choices[0].delta.content or "" async for part in parts])

    assert asyncio.run(ask_it()) == engine.reply("the garden", 8)


def test_a_long_request_in_many_frames(client, engine):
    prompt = " confidentialinferenceneedsevidenceandnotpromisesbeforeanysecret" * 4096
    completion = client.completions.create(model="tiny", prompt=prompt, temperature=0, max_tokens=4)
    assert completion.choices[0].text == engine.text(prompt, 4)


def test_errors_are_sealed_and_quote_nothing(client):
    for kind, members in [(openai.NotFoundError, {"model": "nope"}), (openai.BadRequestError, {"top_p": 7})]:
        with pytest.raises(kind) as raised:
            body = {"model": "tiny", "messages": [{"role": "user", "content": SECRET}], **members}
            client.post("/chat/completions", body=body, cast_to=object)
        assert SECRET not in str(raised.value) and SECRET not in raised.value.response.text


def test_what_is_not_sealed_is_refused(node_url):
    body = {"model": "tiny", "messages": [{"role": "user", "content": SECRET}]}
    answer = httpx.post(f"{node_url}/v1/chat/completions", json=body)
    assert 400 <= answer.status_code < 500 and SECRET not in answer.text


def test_a_key_that_is_not_the_node_s(node_url):
    stranger = ehbp.Client.with_public_key_hex(node_url, "09" + "00" * 31)
    with sealed_sdk(node_url, stranger.server_identity) as client, pytest.raises(openai.APIConnectionError) as raised:
        ask(client, SECRET)
    assert isinstance(raised.value.__cause__, ehbp.KeyConfigMismatchError)


def test_after_a_restart_the_old_key_is_refused_and_the_new_one_opens(own_node, engine):
    node, url = own_node()
    with ehbp.Client.discover(url) as old, sealed_sdk(url, old.server_identity) as client:
        assert ask(client, "the river", max_tokens=4).choices[0].message.content == engine.reply("the river", 4)
        node.terminate()
        assert node.wait(30) == 0
        own_node(listen=url.removeprefix("http://"))
        with pytest.raises(openai.APIConnectionError) as raised:
            ask(client, SECRET)
        assert isinstance(raised.value.__cause__, ehbp.KeyConfigMismatchError)
    with ehbp.Client.discover(url) as new, sealed_sdk(url, new.server_identity) as client:
        assert ask(client, "the river", max_tokens=4).choices[0].message.content == engine.reply("the river", 4)


def test_a_key_that_is_followed_by_another_still_opens(own_node, engine):
    # The next key is published when a quarter of the life is left, and the old one opens ten minutes more.
    _, url = own_node(KEYS__LIFE_S="8")
    first = published(url)
    with ehbp.Client.discover(url) as old, sealed_sdk(url, old.server_identity) as client:
        assert within(30, lambda: published(url) != first), "the key never changed"
        assert ask(client, "the river", max_tokens=4).choices[0].message.content == engine.reply("the river", 4)
    with ehbp.Client.discover(url) as new, sealed_sdk(url, new.server_identity) as client:
        assert ask(client, "the river", max_tokens=4).choices[0].message.content == engine.reply("the river", 4)
