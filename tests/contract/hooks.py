"""What Schemathesis must know beyond the document.

The document cannot name this gateway's model, nor how much the built-in engine makes at once. And what goes into a
prompt gets a mark, which may come back in no error and stand in no log.
"""

import os
import re

import schemathesis

CANARY = os.environ["CANARY"]
MOST = {"n": 4, "dimensions": 64}
WISHES = ("sealgate-region", "sealgate-tags")
LABELS = r"[a-z0-9-]{1,64}([ \t]*,[ \t]*[a-z0-9-]{1,64}){0,15}"


def is_int(value):
    return isinstance(value, int) and not isinstance(value, bool)


def whole_numbers(value):
    """JSON Schema takes 1.0 for an integer; the contract, like most JSON readers, does not."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, list):
        return [whole_numbers(item) for item in value]
    if isinstance(value, dict):
        return {name: whole_numbers(item) for name, item in value.items()}
    return value


def marked(value):
    """The same with the mark in every text of it that is no name of a role or a type."""
    if isinstance(value, str):
        return f"{CANARY} {value}"
    if isinstance(value, list):
        return [marked(item) for item in value]
    if isinstance(value, dict):
        kept = ("role", "type")
        return {name: item if name in kept else marked(item) for name, item in value.items()}
    return value


@schemathesis.serializer("message/ohttp-chunked-req")
def sealed(context, value):
    """No sealed request, which this cannot make: what a node refuses."""
    return value if isinstance(value, bytes) else repr(value).encode()


@schemathesis.hook
def map_body(context, body):
    if not isinstance(body, dict):
        return body
    body = whole_numbers(body)
    model = body.get("model")
    if isinstance(model, str) and 1 <= len(model) <= 256:
        body["model"] = os.environ["MODEL"]
    for name, most in MOST.items():
        if is_int(body.get(name)) and most < body[name] < 2**31:
            body[name] = most
    for name in ("prompt", "messages", "input", "suffix"):
        if name in body:
            body[name] = marked(body[name])
    return body


@schemathesis.hook
def before_call(context, case, kwargs):
    """The document cannot name this gateway's regions and tags either: it has none, and refuses all."""
    for name in list(case.headers or {}):
        if name.lower() in WISHES and re.fullmatch(LABELS, str(case.headers[name])):
            del case.headers[name]


@schemathesis.check
def no_error_repeats_the_prompt(context, response, case):
    if response.status_code >= 400:
        assert CANARY not in response.text, "an error repeats what was in the request"
