"""The front: an ASGI middleware that gives requests for `hilora:auto` the adapter of their prompt.

    vllm serve BASE --enable-lora --middleware hilora_vllm.router.HiloraRouter

It embeds the prompt with the pool's encoder, routes it, writes the route's folder, and puts `hilora:auto:<digest>` in
place of the model's name; the resolver of the same server finds the folder by the digest. A prompt without an adapter
goes to the base model. vLLM keys its prefix cache by the adapter, so by the route's digest.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable

import numpy as np

import hilora

from . import logger
from .library import Library
from .settings import Settings

AUTO = "hilora:auto"
PATHS = ("/v1/completions", "/v1/chat/completions")
MAX_BODY = 64 << 20


class HiloraRouter:
    def __init__(self, app, settings: Settings | None = None, embed: Callable[[str], np.ndarray] | None = None) -> None:
        settings = settings or Settings.from_environment()
        if settings is None:
            raise ValueError("HiloraRouter needs a pool: set HILORA_POOL")
        self._app, self._library = app, Library(settings)
        self._embed = embed or _PoolEncoder(self._library)

    async def __call__(self, scope: dict, receive: Callable[[], Awaitable[dict]], send: Callable) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in PATHS:
            await self._app(scope, receive, send)
            return
        body = await _read(receive)
        if body is None:
            await _refuse(send, 413, f"a request of more than {MAX_BODY} bytes")
            return
        request = _parsed(body)
        if isinstance(request, dict) and request.get("model") == AUTO:
            try:
                text = prompt_of(request)
                request = {**request, "model": await asyncio.to_thread(self._model_for, text)}
            except ValueError as error:
                await _refuse(send, 400, str(error))
                return
            except (hilora.HiloraError, OSError, RuntimeError) as error:
                logger.exception("cannot route a prompt")
                await _refuse(send, 500, f"cannot route the prompt: {error}")
                return
            if request["model"] is None:
                del request["model"]
            body = json.dumps(request).encode()
            headers = [(name, value) for name, value in scope["headers"] if name.lower() != b"content-length"]
            scope = {**scope, "headers": [*headers, (b"content-length", str(len(body)).encode())]}
        await self._app(scope, _replay(body, receive), send)

    def _model_for(self, text: str) -> str | None:
        """The name of the adapter for a prompt; the base model's, None where that has no name, when it needs none."""
        route = self._library.choose(self._embed(text))
        if not len(route):
            return self._library.settings.base_model
        self._library.materialise(route)
        return f"{AUTO}:{route.digest}"


def prompt_of(request: dict) -> str:
    """The text to route by: the prompt, or the latest message of the user. ValueError when there is none."""
    if "messages" in request:
        messages = request["messages"] if isinstance(request["messages"], list) else []
        users = [each for each in messages if isinstance(each, dict) and each.get("role") == "user"]
        content = users[-1].get("content") if users else None
        if isinstance(content, list):
            parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
            content = "\n".join(part for part in parts if isinstance(part, str))
    else:
        content = request.get("prompt")
        if isinstance(content, list) and len(content) == 1:
            content = content[0]
        elif isinstance(content, list):
            raise ValueError(f"{AUTO} takes one prompt of text per request: a request has one model")
    if not isinstance(content, str) or not content.strip():
        raise ValueError(f"{AUTO} needs a prompt of text, or a message of the user with text")
    try:
        content.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{AUTO} needs a prompt of text: this one has halves of characters (surrogates)") from None
    return content


class _PoolEncoder:
    """The pool's own encoder, loaded when the first prompt comes."""

    def __init__(self, library: Library) -> None:
        self._library, self._lock, self._encoder = library, threading.Lock(), None

    def __call__(self, text: str) -> np.ndarray:
        import hilora_embed

        info = self._library.pool().info()
        commit = info.encoder_revision if len(info.encoder_revision) == 40 else None
        settings = hilora_embed.Settings(info.encoder, commit, info.prefix, info.normalized == "yes")
        with self._lock:
            if self._encoder is None or self._encoder.name != info.encoder:
                try:
                    self._encoder = hilora_embed.load_encoder(settings.encoder, settings.revision, "cpu")
                except hilora_embed.EncoderError as error:
                    raise RuntimeError(str(error)) from error
                if info.encoder_revision and self._encoder.revision != info.encoder_revision:
                    logger.warning("the pool's embeddings are of revision %s, the encoder here is %s",
                                   info.encoder_revision, self._encoder.revision)
            return hilora_embed.embed(self._encoder, [text], settings, 1)[0]


async def _read(receive: Callable[[], Awaitable[dict]]) -> bytes | None:
    """The whole body; None when it is too long."""
    body, more = bytearray(), True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message["type"] == "http.request" and message.get("more_body", False)
        if len(body) > MAX_BODY:
            return None
    return bytes(body)


def _parsed(body: bytes) -> object:
    """What is no JSON is the server's to refuse."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _replay(body: bytes, receive: Callable[[], Awaitable[dict]]) -> Callable[[], Awaitable[dict]]:
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> dict:
        return waiting.pop() if waiting else await receive()

    return again


async def _refuse(send: Callable, status: int, message: str) -> None:
    body = json.dumps({"error": {"message": message, "type": "BadRequestError" if status < 500 else "InternalServerError",
                                 "param": "model", "code": status}}).encode()
    await send({"type": "http.response.start", "status": status,
                "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})
