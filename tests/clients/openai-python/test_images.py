"""Images, of a fake engine (tests/engine/images.py): the picture is made of the prompt."""

import openai
import pytest

SECRET = "a prompt that no error may repeat"


@pytest.mark.parametrize("form", ["b64_json", "url"])
@pytest.mark.parametrize("n", [1, 2])
def test_a_picture(client, pictures, canary, form, n):
    prompt = f"{canary} a river"
    answer = client.images.generate(model="picture", prompt=prompt, response_format=form, n=n, size="256x256")
    assert answer.created > 0
    told = pictures(prompt, response_format=form, n=n, size="256x256")
    assert [getattr(image, form) for image in answer.data] == [image[form] for image in told]
    assert len(told) == n


def test_refusals(client, settings):
    with openai.OpenAI(**settings | {"api_key": "sk-wrong"}) as stranger, pytest.raises(openai.AuthenticationError):
        stranger.images.generate(model="picture", prompt=SECRET)
    with pytest.raises(openai.NotFoundError) as raised:
        client.images.generate(model="nope", prompt=SECRET)
    assert raised.value.code == "model_not_found"
    for param, value in [("prompt", 5), ("prompt", None), ("n", 0), ("n", 11), ("response_format", "png"), ("size", 5)]:
        body = {"model": "picture", "prompt": SECRET, param: value}
        with pytest.raises(openai.BadRequestError) as raised:
            client.post("/images/generations", body=body, cast_to=object)
        assert (raised.value.code, raised.value.param) == ("invalid_request", param)
        assert SECRET not in raised.value.response.text
