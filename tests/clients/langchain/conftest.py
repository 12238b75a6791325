"""LangChain's classes pointed at the gateway."""

import pytest
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings


@pytest.fixture(scope="session")
def settings(base_url, api_key):
    # Requests are made once: a test must see the first answer, not a later and luckier one.
    return {"base_url": base_url, "api_key": api_key, "max_retries": 0, "timeout": 60}


@pytest.fixture
def completions(settings):
    def completions(**members):
        return OpenAI(**settings | {"model": "tiny", "temperature": 0} | members)

    return completions


@pytest.fixture
def chat(settings):
    def chat(**members):
        return ChatOpenAI(**settings | {"model": "tiny", "temperature": 0} | members)

    return chat


@pytest.fixture
def embeddings(settings):
    def embeddings(**members):
        # Its own way of counting tokens fetches a vocabulary from elsewhere: texts go as they are.
        return OpenAIEmbeddings(**settings, model="tiny", check_embedding_ctx_length=False, **members)

    return embeddings
