"""The `llm` command with a folder of its own, in which its YAML file names the gateway's models."""

import pytest
from click.testing import CliRunner
from llm.cli import cli

MODELS = """\
- model_id: words
  model_name: tiny
  api_base: {base_url}
  api_key_name: sealgate
  completion: true
- model_id: talk
  model_name: tiny
  api_base: {base_url}
  api_key_name: sealgate
  supports_tools: true
  supports_schema: true
- model_id: unknown
  model_name: nope
  api_base: {base_url}
  api_key_name: sealgate
"""


@pytest.fixture
def llm(tmp_path, base_url, api_key):
    """Runs the command, in this process since it takes seconds to start; gives its exit status, output and errors."""
    (tmp_path / "extra-openai-models.yaml").write_text(MODELS.format(base_url=base_url))

    def llm(*arguments, key=api_key):
        environment = {"LLM_USER_PATH": str(tmp_path), "OPENAI_API_KEY": None}
        ran = CliRunner().invoke(cli, [*arguments, "--key", key], env=environment)
        return ran.exit_code, ran.stdout, ran.stderr

    return llm


def pytest_configure(config):
    # It leaves its connections and its database to the end of the process.
    config.addinivalue_line("filterwarnings", "ignore::ResourceWarning")
    config.addinivalue_line("filterwarnings", "ignore::pytest.PytestUnraisableExceptionWarning")
