"""The seed's SDK as published, pointed at the gateway."""

import os

import pytest
from atoma_sdk import AtomaSDK


@pytest.fixture(scope="session")
def sdk_for():
    def sdk_for(key):
        return AtomaSDK(bearer_auth=key, server_url=os.environ["GATEWAY_URL"], timeout_ms=60_000)

    return sdk_for


@pytest.fixture
def sdk(sdk_for, api_key):
    with sdk_for(api_key) as sdk:
        yield sdk


def asked(message, **members):
    """A greedy question with one user's message."""
    return {"model": "tiny", "messages": [{"role": "user", "content": message}], "temperature": 0, **members}


def pytest_configure(config):
    # It leaves the other of its two HTTP clients open.
    config.addinivalue_line("filterwarnings", "ignore::ResourceWarning")
