"""LiteLLM pointed at the gateway, without the network that it would ask for its price list."""

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import pytest


@pytest.fixture(scope="session")
def settings(base_url, api_key):
    # Requests are made once: a test must see the first answer, not a later and luckier one.
    return {"api_base": base_url, "api_key": api_key, "num_retries": 0, "max_retries": 0, "timeout": 60, "temperature": 0}


def pytest_configure(config):
    # Importing it warns of its own annotations.
    config.addinivalue_line("filterwarnings", "ignore")
