"""What is wrong is refused with the class, the code and the member that the SDK shows, and never quoted."""

import openai
import pytest

SECRET = "a prompt that no error may repeat"


def refusal(call, kind):
    with pytest.raises(kind) as raised:
        call()
    error = raised.value
    assert isinstance(error.type, str) and error.message
    assert error.request_id, "an error without x-request-id"
    assert SECRET not in str(error) and SECRET not in error.response.text
    return error


@pytest.mark.parametrize("key", ["sk-wrong", "sk-test-but-longer", "x"])
def test_a_wrong_key(settings, key):
    with openai.OpenAI(**settings | {"api_key": key}) as client:
        for call in (
            lambda: client.completions.create(model="tiny", prompt=SECRET),
            lambda: client.models.list(),
        ):
            error = refusal(call, openai.AuthenticationError)
            assert error.code == "invalid_api_key"
            assert key not in error.response.text or key == "x"


def test_an_unknown_model(client):
    error = refusal(lambda: client.completions.create(model="nope", prompt=SECRET), openai.NotFoundError)
    assert error.code == "model_not_found"
    error = refusal(lambda: client.models.retrieve("nope"), openai.NotFoundError)
    assert error.code == "model_not_found"


def test_an_unknown_path(client):
    error = refusal(lambda: client.get("/nothing-here", cast_to=object), openai.NotFoundError)
    assert error.code == "not_found"


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("temperature", 3),
        ("temperature", -0.1),
        ("temperature", "0"),
        ("top_p", 1.1),
        ("top_p", -1),
        ("frequency_penalty", 2.1),
        ("presence_penalty", -2.1),
        ("logprobs", 21),
        ("logprobs", -1),
        ("logprobs", True),
        ("n", 0),
        ("n", "2"),
        ("best_of", 0),
        ("stop", ["a", "b", "c", "d", "e"]),
        ("stop", 5),
        ("stop", [5]),
        ("logit_bias", {"1": 101}),
        ("logit_bias", [1]),
        ("max_tokens", -1),
        ("max_tokens", 1.5),
        ("echo", "yes"),
        ("seed", "7"),
        ("prompt", ["a", 5]),
        ("prompt", [True]),
        ("prompt", [-1]),
        ("prompt", {"text": SECRET}),
        ("prompt", None),
        ("model", 5),
        ("model", None),
        ("stream_options", "usage"),
        ("user", 1),
    ],
)
def test_a_member_out_of_its_range(client, param, value, stream):
    body = {"model": "tiny", "prompt": SECRET, "stream": stream, param: value}
    error = refusal(lambda: client.post("/completions", body=body, cast_to=object), openai.BadRequestError)
    # Of an array the element may be named: `stop[0]`.
    assert (error.code, error.param.partition("[")[0]) == ("invalid_request", param)


def test_a_stream_that_is_no_bool(client):
    body = {"model": "tiny", "prompt": SECRET, "stream": "yes"}
    error = refusal(lambda: client.post("/completions", body=body, cast_to=object), openai.BadRequestError)
    assert (error.code, error.param) == ("invalid_request", "stream")


@pytest.mark.parametrize("missing", ["model", "prompt"])
def test_a_missing_member(client, missing):
    body = {"model": "tiny", "prompt": SECRET}
    del body[missing]
    error = refusal(lambda: client.post("/completions", body=body, cast_to=object), openai.BadRequestError)
    assert (error.code, error.param) == ("invalid_request", missing)


def test_a_body_over_8_mib(client):
    prompt = SECRET * (8 * 1024 * 1024 // len(SECRET) + 1)
    error = refusal(lambda: client.completions.create(model="tiny", prompt=prompt), openai.APIStatusError)
    assert (error.status_code, error.code) == (413, "request_too_large")


def test_a_refusal_leaves_the_connection_usable(client, complete):
    for _ in range(3):
        refusal(lambda: complete(SECRET, top_p=5), openai.BadRequestError)
        assert complete("the river", max_tokens=1).choices
