"""Requests to an OpenAI-compatible server: answers cached on disk, a bound, errors in one line.

The openai client retries with growing pauses. `NeuronError` is a failure of one neuron,
`ServerError` one that further neurons would meet too.
"""

import hashlib
import json
import math
import os
import re
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

from wirework import redaction
from wirework.config import ServerConfig
from wirework.errors import InputError, quoted, reason, translated_errors
from wirework.files import is_file, read_record, write_record
from wirework.measures.explain.prompts import Messages, ServerAnswer
from wirework.redaction import redact

if TYPE_CHECKING:
    import openai

T = TypeVar("T")

_TOP_LOGPROBS = 15
_LEAST_LOGPROB = -1e4
"""Replaces minus infinity, which JSON cannot hold."""
_LONGEST = 100_000
"""Most characters of an answer; an answer of the requested length has about ten thousand."""
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class NeuronError(Exception):
    """A neuron has no explanation or score; the message has the reason in one line, no secrets."""

    def __init__(self, message: str) -> None:
        super().__init__(redact(message))


class ServerError(InputError):
    """The server answers no further requests; the message has the reason in one line."""


class Server:
    """Connection to a language model.

    Args:
        config: address, model, retries and bounds.
        cache: folder of answers; a cached answer is not asked for again.

    Raises:
        InputError: the openai package is missing, or a key that the server needs.
    """

    def __init__(self, config: ServerConfig, cache: Path) -> None:
        self._config = config
        self._cache = cache
        self._client = _client(config)
        self._unknown: set[str] = set()  # settings that the server refuses
        self._lock = threading.Lock()
        self._writing = threading.Lock()  # two neurons may write the same answer
        self._stopped: str | None = None
        self.n_requests = 0
        """Requests sent by this run, without retries."""

    def ask(
        self,
        messages: Messages,
        max_tokens: int,
        read: Callable[[ServerAnswer], T],
        logprobs: bool = False,
    ) -> T:
        """Send a conversation at temperature 0, and return its parsed answer.

        Args:
            messages: the conversation.
            max_tokens: most tokens of the answer.
            read: parses an answer; raises `NeuronError` for a useless one, which is not cached.
            logprobs: whether to ask for log-probabilities.

        Raises:
            NeuronError: there is no usable answer to this conversation.
            ServerError: further requests would fail too, or `max_requests` is reached.
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
            return read(_kept_answer(place))
        self._count()
        body = self._post(asked)
        parsed = read(_answer(body))
        with self._writing:
            write_record(place, body)
        return parsed

    def close(self) -> None:
        """Refuse every further request and close the connections, those in use too."""
        self._stop("closed")
        self._client.close()

    def _stop(self, why: str) -> str:
        """Refuse every further request; return the reason, which is that of the first call."""
        with self._lock:
            self._stopped = self._stopped or why
            return self._stopped

    def _place(self, asked: dict[str, Any]) -> Path:
        text = json.dumps([str(self._client.base_url), asked], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        return self._cache / digest[:2] / f"{digest}.json"

    def _count(self) -> None:
        with self._lock:
            limit = self._config.max_requests
            if self._stopped is None and limit is not None and self.n_requests >= limit:
                self._stopped = f"max_requests {limit} is reached"
            if self._stopped is not None:
                raise ServerError(self._stopped)
            self.n_requests += 1

    def _post(self, asked: dict[str, Any]) -> dict[str, Any]:
        import openai

        settings = self._settings(asked)
        try:
            raw = self._client.chat.completions.with_raw_response.create(**settings)
            text = raw.text
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            if self._adapted(settings, _error_text(error).lower()):
                return self._post(asked)
            raise NeuronError(f"the server refused a request: {_error_text(error)}") from None
        except openai.APITimeoutError:
            raise NeuronError(f"no answer in {self._config.timeout:g} seconds") from None
        except openai.APIConnectionError as error:
            raise self._no_more(f"cannot be reached: {reason(error.__cause__ or error)}") from None
        except openai.RateLimitError as error:
            quota = getattr(error, "code", None) == "insufficient_quota"
            why = "over quota" if quota else f"still busy after {self._config.retries} retries"
            raise self._no_more(f"{why} (429): {_error_text(error)}") from None
        except (
            openai.AuthenticationError,
            openai.PermissionDeniedError,
            openai.NotFoundError,
        ) as error:
            raise self._no_more(f"refused ({error.status_code}): {_error_text(error)}") from None
        except openai.APIStatusError as error:
            raise NeuronError(f"server error {error.status_code}: {_error_text(error)}") from None
        except Exception as error:  # of the client, httpx and what reads the bytes: no list has all
            raise NeuronError(f"the server's answer cannot be read: {reason(error)}") from error
        return _checked_answer(text)

    def _settings(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Return a request without the settings that this server refuses."""
        settings = {name: asked[name] for name in asked.keys() - self._unknown}
        if settings.pop("logprobs", False):
            settings |= {"logprobs": True, "top_logprobs": _TOP_LOGPROBS}
        if "max_tokens" not in settings:
            settings["max_completion_tokens"] = asked["max_tokens"]
        return settings

    def _adapted(self, sent: dict[str, Any], error_text: str) -> bool:
        """Remember a setting that the server refused; return whether the request had one.

        Many servers have no log-probabilities. OpenAI's newer models take no `max_tokens`, some of
        them no temperature.
        """
        for name, word in (("logprobs", "logprob"), ("max_tokens",) * 2, ("temperature",) * 2):
            unsupported = (
                name == "logprobs" or "unsupported" in error_text or "not support" in error_text
            )
            if name in sent and word in error_text and unsupported:
                self._unknown.add(name)
                return True
        return False

    def _no_more(self, why: str) -> ServerError:
        return ServerError(
            self._stop(f"server {_public_address(str(self._client.base_url))} {why}")
        )


def require_openai() -> None:
    """Check that openai is installed.

    Raises:
        InputError: it is not installed.
    """
    if find_spec("openai") is None:
        raise InputError("explaining with a language model needs openai: pip install '.[explain]'")


def _client(config: ServerConfig) -> "openai.OpenAI":
    require_openai()
    import openai

    key = os.environ.get(config.api_key_env)
    redaction.register(key)
    base_url = config.base_url or os.environ.get("OPENAI_BASE_URL") or None
    if key is None and base_url is None:
        raise InputError(f"{_variable(config)} is not set, and OpenAI's server needs a key")
    local = base_url is not None and _address_parts(base_url).hostname in _LOOPBACK
    # The client takes proxies from the environment, and those do not reach this machine.
    http = openai.DefaultHttpxClient(trust_env=False) if local else None
    with translated_errors("the language model's server cannot be asked"):
        return openai.OpenAI(
            api_key=key or "none",
            base_url=base_url,
            timeout=config.timeout,
            max_retries=config.retries,
            http_client=http,
        )


def _variable(config: ServerConfig) -> str:
    """Return the name of the key's variable for a message, unless it looks like a key."""
    named = re.fullmatch("[A-Z_][A-Z0-9_]*", config.api_key_env) is not None
    return config.api_key_env if named else "the variable that server.api_key_env names"


def _address_parts(base_url: str) -> SplitResult:
    """Return the parts of a server's address, and register a password in it as a secret."""
    with translated_errors("server.base_url is no address"):
        parts = urlsplit(base_url)
        password = parts.password
    if password is not None:
        redaction.register(password)
        redaction.register(unquote(password))
    if parts.scheme not in ("http", "https"):
        raise InputError(
            f"server.base_url must begin with http:// or https://, got {quoted(base_url)}"
        )
    return parts


def _public_address(base_url: str) -> str:
    """Return an address without user name and password."""
    parts = urlsplit(base_url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def _error_text(error: Any) -> str:
    """Return a server's error message, on one line, without secrets."""
    body = getattr(error, "body", None)
    words = body.get("message") if isinstance(body, dict) else None
    return redact(" ".join(str(words or error).split()))[:300]


def _checked_answer(text: str) -> dict[str, Any]:
    """Return the text and log-probabilities of an answer, without secrets.

    Raises:
        NeuronError: the answer is no chat completion.
    """
    try:
        choice = json.loads(text)["choices"][0]
        content = choice["message"]["content"]
        listed = (choice.get("logprobs") or {}).get("content") or []
        tokens = [str(token_entry["token"]) for token_entry in listed]
        tops = [_top(token_entry) for token_entry in listed]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        begin = redact(text)[:80]
        raise NeuronError(f"the server answered no chat completion: {begin!r}") from None
    if not isinstance(content, str):
        raise NeuronError("the server answered a chat completion without text")
    if len(content) > _LONGEST:
        raise NeuronError(f"the server answered {len(content)} characters, far more than asked for")
    # A key can be spread over tokens: search all of them together.
    all_text = content + "".join(tokens) + json.dumps([tokens, tops])
    listed = zip(tokens, tops, strict=True) if redact(all_text) == all_text else ()
    kept_logprobs = [{"token": token, "top": top} for token, top in listed]
    return {"text": redact(content.encode(errors="replace").decode()), "logprobs": kept_logprobs}


def _top(token_entry: dict[str, Any]) -> dict[str, float]:
    """Return the log-probabilities of the likely tokens at one place of an answer.

    Raises:
        ValueError: one of them is no number.
    """
    logprobs = {str(each["token"]): float(each["logprob"]) for each in token_entry["top_logprobs"]}
    if any(math.isnan(value) for value in logprobs.values()):
        raise ValueError("a log-probability is no number")
    return {token: min(max(value, _LEAST_LOGPROB), 0.0) for token, value in logprobs.items()}


def _kept_answer(place: Path) -> ServerAnswer:
    """Read an answer from the cache.

    Raises:
        InputError: the file is damaged or is no cached answer.
    """
    body = read_record(place, unsigned=True)
    try:
        return _answer({"text": body["text"][:_LONGEST], "logprobs": body["logprobs"]})
    except (LookupError, TypeError):
        raise InputError(f"{place} is no answer of a server: delete it") from None


def _answer(body: dict[str, Any]) -> ServerAnswer:
    return ServerAnswer(body["text"], tuple(body["logprobs"]))
