"""Models that chat."""

import json

import pytest

SECRET = "a prompt that no error may repeat"
GREEDY = ("-o", "temperature", "0", "-o", "max_tokens", "12")


@pytest.mark.parametrize("how", [(), ("--no-stream",)], ids=["stream", "unary"])
def test_an_answer(llm, engine, canary, how):
    message = f"{canary} the river"
    status, said, errors = llm("prompt", message, "-m", "talk", *GREEDY, *how)
    assert status == 0, errors
    assert said == engine.reply(message, 12) + "\n"


def test_a_system_prompt(llm, engine):
    status, said, errors = llm("prompt", "the garden", "-m", "talk", "-s", "you are terse", *GREEDY)
    assert status == 0, errors
    assert said == engine.reply("the garden", 12) + "\n"


def test_a_schema(llm):
    schema = {"type": "object", "properties": {"way": {"type": "string", "enum": ["north", "south"]}}}
    schema |= {"required": ["way"], "additionalProperties": False}
    options = ("-o", "temperature", "0", "-o", "max_tokens", "200")
    status, said, errors = llm("prompt", "the river", "-m", "talk", "--schema", json.dumps(schema), *options)
    assert status == 0, errors
    assert json.loads(said)["way"] in ("north", "south")


def test_refusals(llm):
    cases = [("talk", "sk-wrong", (), "401"), ("unknown", None, (), "404"), ("talk", None, ("-o", "top_p", "1", "-o", "max_tokens", "-1"), "400")]
    for model, key, options, code in cases:
        status, said, errors = llm("prompt", SECRET, "-m", model, *options, **({"key": key} if key else {}))
        assert status == 1 and said.strip() == "", model
        assert code in errors and SECRET not in errors
