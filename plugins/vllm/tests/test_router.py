"""The front: prompts to names of adapters, and a request on its whole way to an adapter's folder."""

import asyncio
import json

import numpy as np
import pytest

from hilora_vllm import router
from hilora_vllm.library import Library
from hilora_vllm.resolver import HiloraResolver
from hilora_vllm.router import HiloraRouter, prompt_of


def embed(text):
    """A direction of its own for each first word."""
    return np.eye(16, dtype=np.float32)[len(text.split()[0]) % 16]


class Server:
    """Notes the request that reaches it."""

    async def __call__(self, scope, receive, send):
        message = await receive()
        self.scope, self.body = scope, message.get("body")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})


def post(front, request, path="/v1/completions", method="POST", pieces=1):
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    step = max(1, -(-len(body) // pieces))
    parts = [body[i : i + step] for i in range(0, len(body), step)] or [b""]
    waiting = [{"type": "http.request", "body": part, "more_body": i + 1 < len(parts)} for i, part in enumerate(parts)]
    sent = []

    async def receive():
        return waiting.pop(0)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": [(b"content-length", b"1"), (b"x-one", b"2")]}
    asyncio.run(front(scope, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"])


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def front(server, settings):
    return HiloraRouter(server, settings, embed)


def test_a_prompt_gets_the_adapter_of_its_route(front, server, settings):
    status, _ = post(front, {"model": "hilora:auto", "prompt": "what is it?", "n": 3}, pieces=4)
    seen = json.loads(server.body)
    route = Library(settings).choose(embed("what is it?"))
    assert status == 200 and seen == {"model": f"hilora:auto:{route.digest}", "prompt": "what is it?", "n": 3}
    assert dict(server.scope["headers"]) == {b"content-length": str(len(server.body)).encode(), b"x-one": b"2"}
    request = asyncio.run(HiloraResolver(settings).resolve_lora("base", seen["model"]))
    assert request.lora_path == str(settings.cache / route.digest)


def test_a_prompt_without_an_adapter_goes_to_the_base(front, server, settings, monkeypatch):
    monkeypatch.setattr(Library, "choose", lambda self, z: [])
    post(front, {"model": "hilora:auto", "prompt": "what"})
    assert json.loads(server.body)["model"] == "plain"
    nameless = HiloraRouter(server, type(settings)(settings.pool, settings.cache), embed)
    post(nameless, {"model": "hilora:auto", "prompt": "what"})
    assert "model" not in json.loads(server.body)


@pytest.mark.parametrize("request_", [{"model": "plain", "prompt": "x"}, {"prompt": "x"}, b"no json", b"[1]", b"", b"[" * 100_000])
def test_other_requests_pass_unchanged(front, server, request_):
    post(front, request_)
    assert server.body == (request_ if isinstance(request_, bytes) else json.dumps(request_).encode())


@pytest.mark.parametrize("path, method", [("/v1/models", "POST"), ("/v1/completions", "GET")])
def test_other_paths_pass_unchanged(front, server, path, method):
    post(front, {"model": "hilora:auto", "prompt": "x"}, path, method)
    assert json.loads(server.body)["model"] == "hilora:auto"


def test_prompts():
    say = lambda role, content: {"role": role, "content": content}  # noqa: E731
    assert prompt_of({"prompt": "a"}) == prompt_of({"prompt": ["a"]}) == "a"
    assert prompt_of({"messages": [say("user", "a"), say("assistant", "b"), say("user", "c"), say("tool", "d")]}) == "c"
    parts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}, {"type": "text", "text": "b"}]
    assert prompt_of({"messages": [say("user", parts)]}) == "a\nb"
    for bad in ({}, {"prompt": ""}, {"prompt": [1, 2]}, {"prompt": ["a", "b"]}, {"prompt": [[1, 2]]}, {"prompt": 3}, {"prompt": "a\ud800"}, {"messages": []},
                {"messages": "x"}, {"messages": [say("system", "a")]}, {"messages": [say("user", [{"type": "text"}])]}, {"messages": [3]}):
        with pytest.raises(ValueError, match="hilora:auto"):
            prompt_of(bad)


def test_what_cannot_be_routed_is_refused(front, server, settings, monkeypatch):
    status, said = post(front, {"model": "hilora:auto", "prompt": [1, 2]})
    assert status == 400 and said["error"]["code"] == 400
    monkeypatch.setattr(router, "MAX_BODY", 10)
    assert post(front, {"model": "plain", "prompt": "x" * 50})[0] == 413
    monkeypatch.undo()

    def fails(text):
        raise RuntimeError("no encoder")

    status, said = post(HiloraRouter(server, settings, fails), {"model": "hilora:auto", "prompt": "x"})
    assert status == 500 and "no encoder" in said["error"]["message"]


def test_it_needs_a_pool(server, monkeypatch):
    monkeypatch.delenv("HILORA_POOL", raising=False)
    with pytest.raises(ValueError, match="HILORA_POOL"):
        HiloraRouter(server)
