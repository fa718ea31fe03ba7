"""Requests to an OpenAI-compatible server: answers kept on disk, a bound, errors in one line.

Retries with growing pauses are those of the openai client. What one neuron cannot get is
`NeuronError`; what no neuron will get is `ServerError`.
"""

import hashlib
import json
import os
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from wirework.config import ServerConfig
from wirework.errors import InputError
from wirework.files import is_file, read_record, write_record
from wirework.measures.explain.prompts import Answer, Messages

if TYPE_CHECKING:
    import openai

T = TypeVar("T")

_TOP_LOGPROBS = 15
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class NeuronError(Exception):
    """One neuron has no explanation or no score; the message says why in one line."""


class ServerError(InputError):
    """Nothing more can be had of the server; the message says why in one line."""


class Server:
    """Asks a language model.

    Args:
        config: which, and how hard to try.
        cache: folder of answers; what lies there is not asked for again.

    Raises:
        InputError: the openai package is missing, or a key where one is needed.
    """

    def __init__(self, config: ServerConfig, cache: Path) -> None:
        self._config = config
        self._cache = cache
        self._client = _client(config)
        self._unknown: set[str] = set()  # settings that the server turned out not to take
        self._lock = threading.Lock()
        self._writing = threading.Lock()  # neurons may ask the same, and get to write it at once
        self._stopped: str | None = None
        self.n_requests = 0
        """Asked of the server by this run, retries not counted."""

    def ask(
        self,
        messages: Messages,
        max_tokens: int,
        read: Callable[[Answer], T],
        logprobs: bool = False,
    ) -> T:
        """Return what is read from the answer to a conversation, at temperature 0.

        Args:
            messages: the conversation.
            max_tokens: bound of the answer.
            read: raises `NeuronError` for an answer that is of no use, which is then not kept.
            logprobs: whether log-probabilities are of use.

        Raises:
            NeuronError: no usable answer to this one.
            ServerError: there will be none to others either, or `max_requests` is reached.
        """
        asked = {
            "model": self._config.model,
            "messages": messages,
            "max_tokens": max_tokens,
            "temperature": 0,
            "logprobs": logprobs and self._config.logprobs,
        }
        place = self._place(asked)
        if is_file(place):
            return read(_answer(read_record(place, unsigned=True)))
        self._count()
        body = self._post(asked)
        found = read(_answer(body))
        with self._writing:
            write_record(place, body)
        return found

    def close(self) -> None:
        """Refuse every further request and close the connections, those in use too."""
        self._stop("closed")
        self._client.close()

    def _stop(self, why: str) -> str:
        """Refuse every further request; return why, which the first call says."""
        with self._lock:
            self._stopped = self._stopped or why
            return self._stopped

    def _place(self, asked: dict[str, Any]) -> Path:
        text = json.dumps([str(self._client.base_url), asked], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        return self._cache / digest[:2] / f"{digest}.json"

    def _count(self) -> None:
        with self._lock:
            most = self._config.max_requests
            if self._stopped is None and most is not None and self.n_requests >= most:
                self._stopped = f"max_requests: {most} have been made"
            if self._stopped is not None:
                raise ServerError(self._stopped)
            self.n_requests += 1

    def _post(self, asked: dict[str, Any]) -> dict[str, Any]:
        import openai

        settings = self._settings(asked)
        try:
            raw = self._client.chat.completions.with_raw_response.create(**settings)
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            if self._adapted(settings, _said(error).lower()):
                return self._post(asked)
            raise NeuronError(f"the server refused a request: {_said(error)}") from None
        except openai.APITimeoutError:
            raise NeuronError(f"no answer in {self._config.timeout:g} seconds") from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise self._no_more(f"cannot be reached: {' '.join(str(cause).split())}") from None
        except openai.RateLimitError as error:
            quota = getattr(error, "code", None) == "insufficient_quota"
            why = "over quota" if quota else f"still busy after {self._config.retries} retries"
            raise self._no_more(f"{why} (429): {_said(error)}") from None
        except (
            openai.AuthenticationError,
            openai.PermissionDeniedError,
            openai.NotFoundError,
        ) as error:
            raise self._no_more(f"refused ({error.status_code}): {_said(error)}") from None
        except openai.APIStatusError as error:
            raise NeuronError(f"server error {error.status_code}: {_said(error)}") from None
        return _plain(raw.text)

    def _settings(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Return a request as this server takes it."""
        settings = {name: asked[name] for name in asked.keys() - self._unknown}
        if settings.pop("logprobs", False):
            settings |= {"logprobs": True, "top_logprobs": _TOP_LOGPROBS}
        if "max_tokens" not in settings:
            settings["max_completion_tokens"] = asked["max_tokens"]
        return settings

    def _adapted(self, sent: dict[str, Any], said: str) -> bool:
        """Note what a server says it does not take; return whether the request had it.

        Many have no log-probabilities; OpenAI's newer models do not take `max_tokens`, some of
        them no temperature.
        """
        for name, word in (("logprobs", "logprob"), ("max_tokens",) * 2, ("temperature",) * 2):
            unsupported = name == "logprobs" or "unsupported" in said or "not support" in said
            if name in sent and word in said and unsupported:
                self._unknown.add(name)
                return True
        return False

    def _no_more(self, why: str) -> ServerError:
        return ServerError(self._stop(f"server {self._client.base_url} {why}"))


def check_installed() -> None:
    """Make sure that openai can be imported.

    Raises:
        InputError: it is not installed.
    """
    if find_spec("openai") is None:
        raise InputError(
            "explaining with a language model needs openai: pip install wirework[explain]"
        )


def _client(config: ServerConfig) -> "openai.OpenAI":
    check_installed()
    import openai

    key = os.environ.get(config.api_key_env)
    base_url = config.base_url or os.environ.get("OPENAI_BASE_URL") or None
    if key is None and base_url is None:
        raise InputError(f"{config.api_key_env} is not set, and OpenAI's server needs a key")
    if base_url is not None and urlsplit(base_url).scheme not in ("http", "https"):
        raise InputError(f"server.base_url must begin with http:// or https://, got {base_url!r}")
    http = None
    if base_url is not None and urlsplit(base_url).hostname in _LOOPBACK:
        # The client takes proxies from the environment, and none leads to this machine.
        http = openai.DefaultHttpxClient(trust_env=False)
    return openai.OpenAI(
        api_key=key or "none",
        base_url=base_url,
        timeout=config.timeout,
        max_retries=config.retries,
        http_client=http,
    )


def _said(error: Any) -> str:
    """Return a server's own words, on one line."""
    body = getattr(error, "body", None)
    words = body.get("message") if isinstance(body, dict) else None
    return " ".join(str(words or error).split())[:300]


def _plain(text: str) -> dict[str, Any]:
    """Return what of an answer is kept.

    Raises:
        NeuronError: it is no chat completion.
    """
    try:
        choice = json.loads(text)["choices"][0]
        content = choice["message"]["content"]
        listed = (choice.get("logprobs") or {}).get("content") or []
        logprobs = [
            {
                "token": one["token"],
                "top": {each["token"]: float(each["logprob"]) for each in one["top_logprobs"]},
            }
            for one in listed
        ]
    except (ValueError, LookupError, TypeError, AttributeError):
        raise NeuronError(f"the server answered no chat completion: {text[:80]!r}") from None
    if not isinstance(content, str):
        raise NeuronError("the server answered a chat completion without text")
    return {"text": content, "logprobs": logprobs}


def _answer(body: dict[str, Any]) -> Answer:
    return Answer(body["text"], tuple(body["logprobs"]))
