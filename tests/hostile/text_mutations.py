"""Mutations of JSON, of lines of JSON, and of YAML."""

import json
import re
from collections.abc import Callable
from random import Random
from typing import Any

from mutation import DoesNotApply, Mutation, rewritten

DEEP = 100_000
Place = tuple[Any, Any]
"""A container and a key or position in it."""


def _places(value: Any) -> list[Place]:
    """Return every place of a JSON value, outermost first."""
    found: list[Place] = []
    waiting = [value]
    while waiting:
        one = waiting.pop(0)
        inner = one.items() if isinstance(one, dict) else enumerate(one)
        for key, held in inner if isinstance(one, dict | list) else ():
            found.append((one, key))
            if isinstance(held, dict | list) and len(found) < 5000:
                waiting.append(held)
    return found


class Raw(str):
    """Stands for text that `json.dumps` would not write."""


def _written(value: Any) -> bytes:
    """Return JSON, `Raw` texts as they are."""
    raws: list[str] = []

    def marked(one: Any) -> Any:
        if isinstance(one, Raw):
            raws.append(one)
            return f"@@{len(raws) - 1}@@"
        if isinstance(one, dict):
            return {key: marked(held) for key, held in one.items()}
        return [marked(held) for held in one] if isinstance(one, list) else one

    text = json.dumps(marked(value), indent=1)
    for number, raw in enumerate(raws):
        text = text.replace(f'"@@{number}@@"', raw)
    return text.encode("utf-8", "surrogatepass")


def _json_change(change: Callable[[Any, Random], Any]) -> Callable[[bytes, Random], bytes]:
    """Return a change of a JSON file's value: made in place, or returned."""

    def apply(content: bytes, generator: Random) -> bytes:
        try:
            value = json.loads(content)
        except ValueError:
            raise DoesNotApply from None
        made = change(value, generator)
        return _written(value if made is None else made)

    return apply


def _chosen(value: Any, generator: Random, fits: Callable[[Any], bool] = lambda _: True) -> Place:
    """Draw a place whose value fits; half of the time one near the top."""
    places = [(one, key) for one, key in _places(value) if fits(one[key])]
    if not places:
        raise DoesNotApply
    near = places[:24]
    return generator.choice(near if generator.random() < 0.5 else places)


def _drop(value: Any, generator: Random) -> None:
    one, key = _chosen(value, generator)
    del one[key]


def _rename(value: Any, generator: Random) -> None:
    places = [(one, key) for one, key in _places(value) if isinstance(one, dict)]
    if not places:
        raise DoesNotApply
    one, key = generator.choice(places)
    one[f"{key}_"] = one.pop(key)


def _swap(value: Any, generator: Random) -> None:
    (a, i), (b, j) = _chosen(value, generator), _chosen(value, generator)
    held = a[i], b[j]
    if any(x is b or x is a for x in held) or held[0] == held[1]:
        raise DoesNotApply
    a[i], b[j] = held[1], held[0]


def _replaced(*others: Any, where: Callable[[Any], bool] = lambda _: True) -> Any:
    def change(value: Any, generator: Random) -> None:
        one, key = _chosen(value, generator, where)
        fitting = [other for other in others if type(other) is not type(one[key])]
        one[key] = generator.choice(fitting or list(others))

    return change


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _negated(value: Any, generator: Random) -> None:
    one, key = _chosen(value, generator, _is_number)
    one[key] = -1 if one[key] == 0 else -one[key]


def _repeated(value: Any, generator: Random) -> None:
    one, key = _chosen(value, generator, lambda v: isinstance(v, list) and len(v) > 0)
    one[key] = one[key] * 3


def _duplicated_key(content: bytes, generator: Random) -> bytes:
    """Name a key of the outermost object twice, with another value."""
    try:
        value = json.loads(content)
    except ValueError:
        raise DoesNotApply from None
    if not isinstance(value, dict) or not value:
        raise DoesNotApply
    key = generator.choice(sorted(value))
    other = {"1": 2}.get(str(value[key]), 1)
    text = json.dumps(value, indent=1)
    return f"{text[: text.rindex('}')].rstrip()},\n {json.dumps(key)}: {other}\n}}".encode()


def _outermost(other: Any) -> Any:
    return lambda *_: other


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


_TYPES: tuple[Any, ...] = ("text", [], {}, None, True, 3, 0.5, [[["x"]]])
_HUGE = (10**30, 2**63, 2**31, 1e308, Raw("1e400"), Raw("9" * 5000), 10**9)
_STRANGE = ("", "\0", "a" * 2_000_000, "../../../etc/passwd", "\u202e", "[/red]", "${HOME}", "-1")

_JSON = {
    "drop": (_json_change(_drop), False),
    "rename": (_json_change(_rename), False),
    "swap": (_json_change(_swap), False),
    "repeat_list": (_json_change(_repeated), False),
    "wrong_type": (_json_change(_replaced(*_TYPES)), False),
    "huge_number": (_json_change(_replaced(*_HUGE, where=_is_number)), False),
    "negative": (_json_change(_negated), False),
    "nan": (
        _json_change(_replaced(Raw("NaN"), Raw("Infinity"), Raw("-Infinity"), where=_is_number)),
        True,
    ),
    "strange_text": (_json_change(_replaced(*map(Raw, map(json.dumps, _STRANGE)), where=_is_text)),
                     False),
    "lone_surrogate": (_json_change(_replaced(Raw('"a\\ud800"'), where=_is_text)), False),
    "surrogate_bytes": (_json_change(_replaced(Raw('"a\ud800"'), where=_is_text)), True),
    "deep": (_json_change(_replaced(Raw("[" * DEEP + "]" * DEEP))), True),
    "deep_outermost": (lambda *_: b"[" * DEEP + b"]" * DEEP, True),
    "unclosed": (lambda *_: b'{"a":' * DEEP, True),
    "duplicate_key": (_duplicated_key, True),
    "list_outermost": (_json_change(_outermost([1, 2])), True),
    "number_outermost": (_json_change(_outermost(3)), True),
    "null_outermost": (_json_change(lambda *_: Raw("null")), True),
    "empty_object": (_json_change(_outermost({})), True),
}  # fmt: skip

_CHECKSUM = re.compile(rb', "sum": "[0-9a-f]{16}"|,\s*"sha256": "[0-9a-f]{64}"|# sha256 of.*\n')


def _without_checksums(content: bytes, generator: Random) -> bytes:
    """Take all checksums in the file off, and change a digit."""
    bare = bytearray(_CHECKSUM.sub(b"", content))
    if len(bare) == len(content):
        raise DoesNotApply
    at = generator.choice([i for i, byte in enumerate(bare) if 48 <= byte < 57])
    bare[at] += 1
    return bytes(bare)


CHECKSUMS = Mutation("without_checksums", rewritten(_without_checksums), loud=False)

JSON = (
    *(Mutation(f"json_{name}", rewritten(change), loud) for name, (change, loud) in _JSON.items()),
    CHECKSUMS,
)


def _of_a_line(change: Callable[[bytes, Random], bytes]) -> Callable[[bytes, Random], bytes]:
    """Return a change of one line that is drawn."""

    def apply(content: bytes, generator: Random) -> bytes:
        lines = content.splitlines(keepends=True)
        if not lines:
            raise DoesNotApply
        at = generator.randrange(len(lines))
        lines[at] = change(lines[at].rstrip(b"\n"), generator).replace(b"\n", b" ") + b"\n"
        return b"".join(lines)

    return apply


def _line_doubled(content: bytes, generator: Random) -> bytes:
    lines = content.splitlines(keepends=True)
    return b"".join([*lines, generator.choice(lines)])


def _line_dropped(content: bytes, generator: Random) -> bytes:
    lines = content.splitlines(keepends=True)
    del lines[generator.randrange(len(lines))]
    return b"".join(lines)


JSON_LINES = (
    *(
        Mutation(f"line_{name}", rewritten(_of_a_line(change)), loud)
        for name, (change, loud) in _JSON.items()
    ),
    Mutation("line_doubled", rewritten(_line_doubled), loud=False),
    Mutation("line_dropped", rewritten(_line_dropped), loud=False),
    CHECKSUMS,
)


def _yaml_value(*others: str) -> Callable[[bytes, Random], bytes]:
    """Put another value after one of the keys."""

    def apply(content: bytes, generator: Random) -> bytes:
        lines = content.decode().split("\n")
        keyed = [i for i, line in enumerate(lines) if ": " in line and "#" not in line]
        if not keyed:
            raise DoesNotApply
        at = generator.choice(keyed)
        lines[at] = f"{lines[at].split(': ')[0]}: {generator.choice(others)}"
        return "\n".join(lines).encode()

    return apply


def _bomb(merge: bool) -> bytes:
    """Return YAML of a few hundred bytes that comes to 10^9 values."""
    if merge:
        parts = ["a0: &a0 {x: 1}"]
        parts += [
            f"a{i}: &a{i} {{" + ", ".join(f"k{i}_{j}: *a{i - 1}" for j in range(10)) + "}"
            for i in range(1, 10)
        ]
        parts += ["bomb: {<<: [*a9, *a8]}"]
    else:
        parts = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
        parts += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    return "\n".join(parts).encode() + b"\n"


def _yaml_line_doubled(content: bytes, generator: Random) -> bytes:
    lines = content.decode().split("\n")
    top = [line for line in lines if ": " in line and not line.startswith((" ", "#", "-"))]
    if not top:
        raise DoesNotApply
    key = generator.choice(top).split(":")[0]
    return content.rstrip(b"\n") + f"\n{key}: 1\n".encode()


_CODE = '!!python/object/apply:os.system ["touch canary"]'
_YAML = {
    "bomb": (lambda *_: _bomb(merge=False), True),
    "merge_bomb": (lambda *_: _bomb(merge=True), True),
    "bomb_beside": (lambda c, _: c.rstrip(b"\n") + b"\n" + _bomb(merge=False), True),
    "merge_bomb_beside": (lambda c, _: c.rstrip(b"\n") + b"\n" + _bomb(merge=True), True),
    "self_reference": (_yaml_value("&me [*me]", "&me {a: *me}"), True),
    "code": (_yaml_value(_CODE), True),
    "code_outermost": (lambda *_: _CODE.encode(), True),
    "tag": (_yaml_value("!unknown 3", "!!binary xyz", "!!timestamp x", "!!set {1, 2}"), True),
    "tab": (_yaml_value("\t- x", "{\ta: 1"), False),
    "huge_integer": (_yaml_value("9" * 5000), True),
    "huge_number": (_yaml_value("1e30", "9223372036854775808", "1000000000000"), False),
    "nan": (_yaml_value(".nan", ".inf", "-.inf"), True),
    "negative": (_yaml_value("-1"), False),
    "wrong_type": (_yaml_value("[a, b]", "{a: 1}", "text", "yes", "null", "2001-01-01"), False),
    "deep": (_yaml_value("[" * 5000 + "]" * 5000), True),
    "very_deep": (lambda *_: b"[" * DEEP, True),
    "long_text": (_yaml_value("x" * 2_000_000), False),
    "duplicate_key": (_yaml_line_doubled, True),
    "nul": (lambda c, _: c + b"x: \x00\n", True),
    "two_documents": (lambda c, _: c + b"\n---\nsteps: 1\n", True),
    "list_outermost": (lambda *_: b"- 1\n- 2\n", True),
    "sexagesimal": (_yaml_value("1:30:00"), False),
}  # fmt: skip

YAML = (
    *(Mutation(f"yaml_{name}", rewritten(change), loud) for name, (change, loud) in _YAML.items()),
    CHECKSUMS,
)
