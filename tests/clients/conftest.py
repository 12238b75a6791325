"""What the Python suites share.

`run.sh` sets `BASE_URL`, `GATEWAY_URL` and `API_KEY` (the gateway), `NODE_URL` (the node), `ENGINE_URL`, `ENGINE_LOG`
and `IMAGES_URL` (the engines behind it) and `CANARY`, a text that goes into prompts and may stand in no log.
"""

import os
from pathlib import Path

import pytest
from engine import Engine, call, within


@pytest.fixture(scope="session")
def engine():
    return Engine(os.environ["ENGINE_URL"], Path(os.environ["ENGINE_LOG"]))


@pytest.fixture(scope="session")
def pictures():
    """What the engine for images itself answers."""

    def pictures(prompt, **members):
        body = {"model": "picture", "prompt": prompt, **members}
        return call(os.environ["IMAGES_URL"] + "/v1/images/generations", body)["data"]

    return pictures


@pytest.fixture(scope="session")
def base_url():
    return os.environ["BASE_URL"]


@pytest.fixture(scope="session")
def api_key():
    return os.environ["API_KEY"]


@pytest.fixture(scope="session")
def canary():
    return os.environ["CANARY"]


@pytest.fixture
def quiet(engine):
    """Begins the test with an idle engine."""
    assert within(30, lambda: not engine.busy()), "the engine is still busy with an earlier test"
