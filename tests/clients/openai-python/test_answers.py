"""What a caller gets is what the engine says, sealed on the way or not."""

import asyncio
import math
import re

import openai
import pytest
from engine import WORDS

PROMPT = "the sealed gateway"


def test_unary(complete, engine, canary):
    prompt = f"{canary} the river"
    completion = complete(prompt, max_tokens=12)
    assert completion.object == "text_completion"
    assert completion.model == "tiny"
    assert completion.id and completion.created > 0 and completion.system_fingerprint is not None
    [choice] = completion.choices
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "length", None)
    assert choice.text == engine.text(prompt, 12)
    usage = completion.usage
    assert usage.prompt_tokens == len(engine.tokens(prompt))
    assert usage.completion_tokens == 12
    assert usage.total_tokens == usage.prompt_tokens + 12
    assert usage.prompt_tokens_details.cached_tokens >= 0
    assert usage.completion_tokens_details.reasoning_tokens == 0


def test_max_tokens_is_16_unless_said(complete, engine):
    assert complete(PROMPT).choices[0].text == engine.text(PROMPT, 16)


def test_the_engine_s_end_is_stop(complete):
    [choice] = complete("the end", max_tokens=5).choices
    assert (choice.text, choice.finish_reason) == ("", "stop")


def test_stream(complete, engine, canary):
    prompt = f"{canary} the mountain"
    chunks = list(complete(prompt, max_tokens=20, stream=True))
    assert len(chunks) > 10, "the answer came in one piece"
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert {(chunk.object, chunk.model) for chunk in chunks} == {("text_completion", "tiny")}
    assert all(len(chunk.choices) == 1 and chunk.usage is None for chunk in chunks)
    assert "".join(chunk.choices[0].text for chunk in chunks) == engine.text(prompt, 20)
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert reasons[-1] == "length" and not any(reasons[:-1])


def test_stream_with_usage(complete, engine):
    options = {"include_usage": True}
    *chunks, last = complete(PROMPT, max_tokens=8, stream=True, stream_options=options)
    assert last.choices == []
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (len(engine.tokens(PROMPT)), 8)
    assert last.usage.total_tokens == last.usage.prompt_tokens + 8
    assert last.usage.prompt_tokens_details is not None and last.usage.completion_tokens_details is not None
    assert all(chunk.usage is None and "usage" in chunk.model_fields_set for chunk in chunks)
    assert "".join(chunk.choices[0].text for chunk in chunks) == engine.text(PROMPT, 8)


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("form", ["string", "strings", "tokens", "token arrays"])
def test_prompt_forms(complete, engine, form, stream):
    texts = ["the river", "a quiet harbour"]
    prompt = {
        "string": texts[0],
        "strings": texts,
        "tokens": engine.tokens(texts[0]),
        "token arrays": [engine.tokens(text) for text in texts],
    }[form]
    texts = texts if form in ("strings", "token arrays") else texts[:1]
    answer = complete(prompt, max_tokens=8, stream=stream)
    answers = dict.fromkeys(range(len(texts)), "")
    for part in answer if stream else [answer]:
        for choice in part.choices:
            answers[choice.index] += choice.text
    assert answers == {index: engine.text(text, 8) for index, text in enumerate(texts)}


def test_logprobs(complete):
    [choice] = complete(PROMPT, max_tokens=6, logprobs=2).choices
    logprobs = choice.logprobs
    assert "".join(logprobs.tokens) == choice.text and len(logprobs.tokens) == 6
    # The tiny model's likeliest next token always has this chance.
    assert logprobs.token_logprobs == pytest.approx([math.log(0.7)] * 6, abs=0.01)
    for token, logprob, top in zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, strict=True):
        assert 2 <= len(top) <= 3 and top[token] == logprob == max(top.values())
    starts = [offset - logprobs.text_offset[0] for offset in logprobs.text_offset]
    assert starts == [len("".join(logprobs.tokens[:index])) for index in range(6)]


def test_logprobs_in_a_stream(complete):
    chunks = list(complete(PROMPT, max_tokens=6, logprobs=1, stream=True))
    tokens = [token for chunk in chunks if (found := chunk.choices[0].logprobs) for token in found.tokens]
    assert "".join(tokens) == "".join(chunk.choices[0].text for chunk in chunks)


def test_two_choices(complete, engine):
    completion = complete(PROMPT, max_tokens=6, n=2)
    assert [choice.index for choice in completion.choices] == [0, 1]
    assert {choice.text for choice in completion.choices} == {engine.text(PROMPT, 6)}


def test_stop(complete, engine):
    words = engine.text(PROMPT, 8).split()
    for stop in (words[3], [words[3]], ["never said", words[3]], [words[5], words[3], "x", "y"]):
        [choice] = complete(PROMPT, max_tokens=8, stop=stop).choices
        assert choice.finish_reason == "stop", stop
        assert choice.text.split() == words[:3], stop


def test_null_members_are_absent_members(complete, engine):
    nulls = dict.fromkeys(
        "best_of echo frequency_penalty logit_bias logprobs max_tokens n presence_penalty seed stop stream"
        " stream_options suffix top_p user".split()
    )
    completion = complete(PROMPT, extra_body=nulls)
    assert completion.choices[0].text == engine.text(PROMPT, 16)


def test_all_members(complete, engine):
    completion = complete(
        PROMPT,
        best_of=1,
        echo=False,
        frequency_penalty=0.0,
        logit_bias={"2": -100},
        logprobs=0,
        max_tokens=8,
        n=1,
        presence_penalty=0,
        seed=7,
        stop=None,
        top_p=1,
        user="someone",
        extra_body={"a_member_of_tomorrow": {"x": [1, None]}},
    )
    assert completion.choices[0].text == engine.text(PROMPT, 8)


def test_emoji_whose_bytes_are_tokens(complete, engine):
    told = engine.text("say emoji", 25)
    assert told.count("\U0001f600") == 5 and "\ufffd" not in told
    assert complete("say emoji", max_tokens=25).choices[0].text == told
    chunks = [chunk.choices[0].text for chunk in complete("say emoji", max_tokens=25, stream=True)]
    assert "".join(chunks) == told


def test_any_text_arrives_whole(complete, engine):
    for prompt in ("", "\u0000\u001f\\\"/", "ünïcödé \U0001f469\u200d\U0001f680 中文\r\n\u2028", "x" * 5000):
        completion = complete(prompt, max_tokens=2)
        assert completion.usage.prompt_tokens == len(engine.tokens(prompt)), repr(prompt[:20])
        assert completion.choices[0].text == engine.text(prompt, 2), repr(prompt[:20])


def test_a_prompt_of_1_mib(complete, engine):
    # Sixteen of these are one token (tests/engine/tiny_model.py), so that the engine soon has read them.
    prompt = " confidentialinferenceneedsevidenceandnotpromisesbeforeanysecret" * 16_384
    assert len(prompt) == 1 << 20
    completion = complete(prompt, max_tokens=4)
    assert completion.usage.prompt_tokens == len(engine.tokens(prompt))
    assert completion.choices[0].text == engine.text(prompt, 4)


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
def test_100_at_once_get_their_own_answers(settings, engine, stream):
    prompts = [f"tell me of {word}" for word in WORDS[:100]]

    async def ask(client, prompt):
        answer = await client.completions.create(
            model="tiny", prompt=prompt, temperature=0, max_tokens=12, stream=stream
        )
        if stream:
            return "".join([chunk.choices[0].text async for chunk in answer])
        return answer.choices[0].text

    async def ask_all():
        async with openai.AsyncOpenAI(**settings) as client:
            return await asyncio.gather(*(ask(client, prompt) for prompt in prompts))

    answers = asyncio.run(ask_all())
    assert len(set(answers)) == 100
    assert answers == [engine.text(prompt, 12) for prompt in prompts]


def test_every_answer_has_an_id_and_says_what_was_attested(client, complete):
    ids = {complete(PROMPT, max_tokens=1)._request_id for _ in range(3)}
    assert len(ids) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", id) for id in ids), ids
    for stream in (False, True):
        with client.completions.with_streaming_response.create(
            model="tiny", prompt=PROMPT, max_tokens=2, stream=stream
        ) as raw:
            assert re.fullmatch("[0-9a-f]{32}", raw.headers["x-request-id"])
            assert raw.headers["sealgate-node"]
            attestation = raw.headers["sealgate-attestation"]
            assert re.fullmatch(r'sev-snp; root="software root"; age=[0-9]+', attestation), attestation
            kind = "text/event-stream" if stream else "application/json"
            assert raw.headers["content-type"].split(";")[0] == kind
            raw.read()


def test_models(client):
    assert sorted(model.id for model in client.models.list()) == ["picture", "tiny"]
    model = client.models.retrieve("tiny")
    assert (model.id, model.object) == ("tiny", "model")
