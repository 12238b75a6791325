"""Tinfoil's client under the official SDK, pointed at a node: what it sends is sealed on the way to the engine."""

import contextlib
import os
import subprocess
from pathlib import Path

import ehbp
import httpx
import openai
import pytest


@contextlib.contextmanager
def sealed_sdk(url, identity):
    """The official SDK over the client's transport. A node asks for no key."""
    with openai.OpenAI(
        base_url=f"{url}/v1",
        api_key="none",
        max_retries=0,
        timeout=60,
        http_client=httpx.Client(transport=ehbp.EHBPTransport(identity)),
    ) as client:
        yield client


@pytest.fixture(scope="session")
def node_url():
    return os.environ["NODE_URL"]


@pytest.fixture
def identity(node_url):
    """The key that the node publishes; whoever relies on it gets it from the node's statement instead."""
    with ehbp.Client.discover(node_url) as client:
        return client.server_identity


@pytest.fixture
def client(node_url, identity):
    with sealed_sdk(node_url, identity) as client:
        yield client


@pytest.fixture
def own_node(tmp_path):
    """Starts nodes for one test, as `run.sh`'s is configured; their logs are looked through in the end."""
    set_up, logs = Path(os.environ["SET_UP"]), Path(os.environ["LOGS"])
    running = []

    def start(listen="127.0.0.1:0", **settings):
        overridden = {f"SEALGATE_{name}": value for name, value in settings.items()}
        log = logs / f"node-of-{tmp_path.name}-{len(list(logs.glob('node-of-*')))}.log"
        with log.open("wb") as errors:
            node = subprocess.Popen(
                [os.environ["SEALGATE"], "node", "--config", set_up / "node.toml"],
                env=os.environ | {"SEALGATE_LISTEN": listen} | overridden,
                stdout=subprocess.PIPE, stderr=errors, text=True,
            )
        running.append(node)
        line = node.stdout.readline()
        assert "listening on " in line, log.read_text()
        return node, line.split("listening on ")[1].strip()

    yield start
    for node in running:
        node.terminate()
        node.wait(30)
        node.stdout.close()
