"""The SDK pointed at the gateway."""

import openai
import pytest


@pytest.fixture(scope="session")
def settings(base_url, api_key):
    # Requests are made once: a test must see the first answer, not a later and luckier one.
    return {"base_url": base_url, "api_key": api_key, "max_retries": 0, "timeout": 60}


@pytest.fixture
def client(settings):
    with openai.OpenAI(**settings) as client:
        yield client


@pytest.fixture
def complete(client):
    """A greedy completion of `tiny`; keyword arguments are the SDK's."""

    def complete(prompt, **members):
        return client.completions.create(model="tiny", prompt=prompt, temperature=0, **members)

    return complete


@pytest.fixture
def chat(client):
    """A greedy answer of `tiny` in a conversation; a string is one user's message."""

    def chat(messages, **members):
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        return client.chat.completions.create(model="tiny", messages=messages, temperature=0, **members)

    return chat
