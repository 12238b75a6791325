"""Models with `completion: true`."""

import pytest

SECRET = "a prompt that no error may repeat"
GREEDY = ("-o", "temperature", "0", "-o", "max_tokens", "12")


@pytest.mark.parametrize("how", [(), ("--no-stream",)], ids=["stream", "unary"])
def test_a_completion(llm, engine, canary, how):
    prompt = f"{canary} the river"
    status, said, errors = llm("prompt", prompt, "-m", "words", *GREEDY, *how)
    assert status == 0, errors
    assert said == engine.text(prompt, 12) + "\n"


def test_a_wrong_key(llm):
    status, said, errors = llm("prompt", SECRET, "-m", "words", key="sk-wrong")
    assert status == 1 and said.strip() == ""
    assert "401" in errors and SECRET not in errors


def test_an_unknown_model(llm):
    status, said, errors = llm("prompt", SECRET, "-m", "unknown")
    assert status == 1 and said.strip() == ""
    assert "404" in errors and SECRET not in errors


def test_a_member_out_of_its_range(llm):
    status, said, errors = llm("prompt", SECRET, "-m", "words", "-o", "max_tokens", "-1")
    assert status == 1 and said.strip() == ""
    assert "400" in errors and SECRET not in errors
