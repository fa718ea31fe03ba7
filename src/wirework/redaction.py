"""Replace secrets by `***` in messages and in files.

Known secrets are the values of environment variables with telling names (`OPENAI_KEY`, `HF_TOKEN`,
`DB_PASSWORD`), the stored tokens of the Hugging Face hub, the key that wandb keeps in `.netrc`, and
values registered at run time. External text (an error, a server's answer) is redacted as soon as it
is received, and before it is cut, because half of a key is still a leak.
"""

import contextlib
import json
import os
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

MASK = "***"
_LEAST = 8
"""Minimum length of a secret: shorter values may be parts of words."""

_NAME = re.compile(
    r"(?:(?:API|^|_)KEYS?|TOKEN|SECRETS?|(?:^|_)PAT|_PWD)(?:_?\d+)?$|PASSWORD|PASSWD|PASSPHRASE",
    re.IGNORECASE,
)
_HUB_TOKEN = re.compile(r"^\s*\w*token\s*[=:](.+)$", re.IGNORECASE | re.MULTILINE)
"""A line of the hub's `stored_tokens`: `hf_token = ...`, `refresh_token = ...`."""
_registered: set[str] = set()


def register(secret: str | None) -> None:
    """Treat a value as a secret from now on; ignore one of fewer than 8 characters."""
    if secret is not None and len(secret.strip()) >= _LEAST:
        _registered.add(secret)


def redact(text: str) -> str:
    """Return `text` with every known secret, in all forms of `_forms`, replaced by `***`."""
    for form in sorted(_forms(), key=len, reverse=True):
        text = text.replace(form, MASK)
    return text


def print_traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print an uncaught error to standard error without secrets; for `sys.excepthook`."""
    text = redact("".join(traceback.format_exception(kind, error, trace)))
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    sys.stderr.write(text.encode(encoding, "backslashreplace").decode(encoding))


def _forms() -> set[str]:
    """Return each secret unchanged, on one line without surrounding blanks, and quoted."""
    forms = set()
    for secret in {*_registered, *_from_environment(), *_stored()}:
        for value in (secret, secret.strip(), " ".join(secret.split())):
            url = quote(value, safe="", errors="surrogateescape")  # bytes that are not UTF-8
            forms |= {value, repr(value)[1:-1], json.dumps(value)[1:-1], url}
    return {form for form in forms if len(form) >= _LEAST}


def _from_environment() -> Iterator[str]:
    return (value for name, value in os.environ.items() if _NAME.search(name))


def _stored() -> Iterator[str]:
    """Yield secrets that imported libraries store in files; others cannot occur in messages."""
    if "huggingface_hub" in sys.modules:
        with contextlib.suppress(OSError, UnicodeDecodeError, RuntimeError):
            yield _hub_token_file().read_text(encoding="utf-8")
        with contextlib.suppress(OSError, RuntimeError):
            stored = (
                (_hub_token_file().parent / "stored_tokens").read_bytes().decode("utf-8", "replace")
            )
            yield from (token.strip() for token in _HUB_TOKEN.findall(stored))
    if "wandb" in sys.modules:
        import netrc

        with contextlib.suppress(OSError, netrc.NetrcParseError, UnicodeDecodeError):
            for _, _, password in netrc.netrc(os.environ.get("NETRC")).hosts.values():
                yield password or ""


def _hub_token_file() -> Path:
    """Return the path of the hub's token.

    Raises:
        RuntimeError: the user has no home folder, as in some containers.
    """
    if path := os.environ.get("HF_TOKEN_PATH"):
        return Path(path).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("HF_HOME") or f"{cache}/huggingface"
    return Path(home).expanduser() / "token"
