"""Agents behind OpenAI-compatible servers: asked for a reply until there is one, or an error that names the agent.

For evaluations (`remote_eval`). A server is asked over HTTP for chat completions and trusted with nothing: it may
hang, break off, or send anything at all. What passes is tried again after a pause; what does not (an unknown model,
a refused key) is told at once. Nothing here knows of environments.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from collm_agents.config import RemoteConfig, SamplingConfig
from collm_envs.errors import CollmError, InputError

MOST_BYTES = 4_000_000  # of one answer
LONGEST_PAUSE_S = 30.0
PASSING = (408, 409, 425, 429)  # statuses below 500 that another try may mend
NAMELESS = (400, 404, 422)  # what servers say to a request that names no model, where they want one

Message = Mapping[str, str]


class RemoteError(CollmError, RuntimeError):
    """A server did not give an agent's reply; names the agent, the address and what came in its place."""


class _Passing(Exception):
    """What went wrong and may go right the next time; `pause_s` is what the server asked for, or 0."""

    def __init__(self, what: str, pause_s: float = 0.0) -> None:
        super().__init__(what)
        self.pause_s = pause_s


@dataclass(frozen=True)
class Endpoint:
    """Where an agent lives.

    Attributes:
        agent: its name.
        url: base address of the server's API, such as `http://127.0.0.1:8001/v1`.
        model: what the server calls the model; empty where it serves one.
    """

    agent: str
    url: str
    model: str = ""

    def __str__(self) -> str:
        return f"agent {self.agent} at {self.url}"


def endpoint(agent: str, address: str) -> Endpoint:
    """Read `URL` or `URL#MODEL`.

    Raises:
        InputError: for what is no address of a server.
    """
    url, _, model = address.partition("#")
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # half an IPv6 address, or a port beyond 65535
        whole = False
    if not whole:
        raise InputError(
            f"--agents {agent}={address}: an address reads http://HOST:PORT/v1, with #MODEL if need be"
        )
    if parts.username or parts.password:
        raise InputError(f"--agents {agent}: keys belong into the environment variable {_key_name(agent)}")
    return Endpoint(agent, url.rstrip("/"), model)


@dataclass(frozen=True)
class Answer:
    """One reply of a server.

    Attributes:
        text: what the agent says.
        cut: a limit on tokens ended it.
        tokens: how many it took; None where the server does not say.
        tries: requests until it came.
        seconds: how long the last of them took.
    """

    text: str
    cut: bool
    tokens: int | None
    tries: int
    seconds: float


class RemoteAgent:
    """Asks one agent's server; use as an asynchronous context.

    Args:
        place: where it lives.
        sampling: how replies are drawn; `top_k` is sent only where it is set, since not every server knows it.
        settings: time-outs, tries, requests at once.
    """

    def __init__(self, place: Endpoint, sampling: SamplingConfig, settings: RemoteConfig) -> None:
        self.place, self._sampling, self._settings = place, sampling, settings
        self._room = asyncio.Semaphore(settings.at_once)
        self._model = place.model
        host = urlsplit(place.url).hostname or ""
        key = os.environ.get(_key_name(place.agent)) or os.environ.get("COLLM_API_KEY")
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=settings.timeout_s,
            limits=httpx.Limits(max_connections=settings.at_once),
            trust_env=host not in ("localhost", "127.0.0.1", "::1"),  # no proxy between a machine and itself
        )

    async def __aenter__(self) -> RemoteAgent:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._client.aclose()

    async def reply(self, messages: Sequence[Message], seed: int | None) -> Answer:
        """Ask for one reply.

        Args:
            messages: the conversation so far, `role` and `content` each, the newest observation last.
            seed: of the draws, for servers that know it; None for the likeliest tokens.

        Raises:
            RemoteError: when no try brought one.
        """
        body: dict[str, Any] = {"messages": list(messages), "max_tokens": self._sampling.max_new_tokens}
        if seed is None:
            body |= {"temperature": 0.0}
        else:
            body |= {"temperature": self._sampling.temperature, "top_p": self._sampling.top_p, "seed": seed}
        if self._sampling.top_k:
            body["top_k"] = self._sampling.top_k
        async with self._room:
            for number in range(1, self._settings.retries + 2):
                started = asyncio.get_running_loop().time()
                try:
                    text, cut, tokens = _read(await self._ask("/chat/completions", body))
                except _Passing as passing:
                    why, pause_s = str(passing), passing.pause_s
                else:
                    return Answer(text, cut, tokens, number, asyncio.get_running_loop().time() - started)
                if number <= self._settings.retries:
                    wait_s = self._settings.backoff_s * 2.0 ** (number - 1) * random.uniform(0.5, 1.0)
                    await asyncio.sleep(min(max(wait_s, pause_s), LONGEST_PAUSE_S))
        raise RemoteError(
            f"{self.place}: no reply in {self._settings.retries + 1} tries; the last time: {why}"
        )

    async def _ask(self, path: str, body: dict[str, Any]) -> Any:
        """One request; parsed JSON, whatever it holds."""
        named = {"model": self._model} if self._model else {}
        status, data, headers = await self._send("POST", path, {**named, **body})
        if status in NAMELESS and not self._model and (only := await self._only_model()):
            self._model = only
            status, data, headers = await self._send("POST", path, {"model": only, **body})
        if status >= 500 or status in PASSING:
            raise _Passing(f"HTTP {status}: {_words(data)}", _pause(headers))
        if status != 200:
            hint = "; addresses mostly end in /v1" if status == 404 and "/v1" not in self.place.url else ""
            raise RemoteError(f"{self.place}: HTTP {status}: {_words(data)}{hint}")
        return _json(data)

    async def _only_model(self) -> str:
        """Name of the model that a server serves; empty where it lists none or several."""
        status, data, _ = await self._send("GET", "/models", None)
        listed = _json(data) if status == 200 else {}
        models = listed.get("data") if isinstance(listed, dict) else None
        names = [one.get("id") for one in models if isinstance(one, dict)] if isinstance(models, list) else []
        return str(names[0]) if len(names) == 1 else ""

    async def _send(self, method: str, path: str, body: Any) -> tuple[int, bytes, Mapping[str, str]]:
        """Status, body and headers; the time limit holds for the whole of it, however slowly it trickles."""
        limit_s, data = self._settings.timeout_s, bytearray()
        try:
            async with (
                asyncio.timeout(limit_s),
                self._client.stream(method, self.place.url + path, json=body) as answer,
            ):
                async for chunk in answer.aiter_bytes():
                    data += chunk
                    if len(data) > MOST_BYTES:
                        raise _Passing(f"an answer of more than {MOST_BYTES} bytes")
                return answer.status_code, bytes(data), answer.headers
        except (TimeoutError, httpx.TimeoutException):
            raise _Passing(f"no answer in {limit_s:g} s") from None
        except httpx.HTTPError as error:  # no connection, cut off, no HTTP
            raise _Passing(f"{type(error).__name__}: {error}") from None


def _key_name(agent: str) -> str:
    return f"COLLM_API_KEY_{agent.upper()}"


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise _Passing(f"no JSON: {_words(data)}") from None


def _read(answer: Any) -> tuple[str, bool, int | None]:
    """Text, whether it was cut, and tokens, of a chat completion."""
    try:
        choice = answer["choices"][0]
        text, ended = choice["message"]["content"], choice.get("finish_reason")
        usage = answer.get("usage") or {}
        tokens = usage.get("completion_tokens")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise _Passing(f"no chat completion: {_words(json.dumps(answer).encode())}") from None
    if not isinstance(text, str):
        raise _Passing(f"a chat completion whose text is {text!r:.40}")
    counted = tokens if isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 0 else None
    # Half a character is no text, and could not be sent back in the next turn's messages.
    return text.encode("utf-8", "replace").decode("utf-8"), ended == "length", counted


def _pause(headers: Mapping[str, str]) -> float:
    """Seconds that a server asks to be left alone."""
    try:
        return max(0.0, float(headers.get("retry-after", "")))
    except ValueError:
        return 0.0


def _words(data: bytes) -> str:
    """The beginning of an answer, for a message."""
    text = " ".join(data[:400].decode("utf-8", errors="replace").split())
    shown = "".join(c if c.isprintable() else "\ufffd" for c in text)
    return (shown[:200] + " …" if len(shown) > 200 else shown) or "an empty body"
