"""Settings files that would fill the memory, never end or break a message."""

import os
from itertools import pairwise
from pathlib import Path

import pytest

from wirework.config import DataConfig, PruneConfig, SelfAblationConfig, TrainConfig, read_yaml
from wirework.errors import InputError

LEVELS = "abcdefghij"


def bomb(first: str, level: str) -> str:
    """Ten levels, each of ten times the one before."""
    lines = [f"a: &a {first}"]
    for before, name in pairwise(LEVELS):
        lines.append(f"{name}: &{name} {level.format(','.join([f'*{before}'] * 10))}")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (bomb("[x]", "[{}]"), "more than 50,000 values"),
        (bomb("{x: 1}", "{{<<: [{}]}}"), "more than 50,000 values"),
        (bomb("{x: 1}", "{{k: [{}]}}"), "more than 50,000 values"),
        ("a: &a [1, *a]", r"a value holds itself \(line 1\)"),
        ("steps: 1\na: &a\n  b: {c: *a}", r"a value holds itself \(line 2\)"),
        ("a: &a\n  <<: *a", "a value holds itself"),
        ("[" * 200 + "]" * 200, "nested more than 40 deep"),
        ("a: " + "[" * 100_000, "is not YAML"),
        ("- " * 100_000, "is not YAML"),
        ("{a: " * 60 + "1" + "}" * 60, "nested more than 40 deep"),
        ("steps: " + "1" * 5000, "line 1: too long for a number: '1111"),
        ("steps: " + "1:" * 50_000 + "1", "line 1: too long for a number"),
        ("lr: 1." + "0" * 5000, "line 1: too long for a number"),
        ("steps: !!int abc", "is not YAML: invalid literal"),
        ("steps: 2001-99-99", "is not YAML: month must be in"),
        ("x: *nothing", "is not YAML: found undefined alias"),
        ("a: " + "x" * (1 << 19), "too large: more than 524,288 bytes"),
        ("? [a, b]\n: 1", "is not YAML|unhashable"),
        ("a: 1\n---\nb: 2", "is not YAML: expected a single document"),
        ("a: 1\nb: 2\na: 3", "line 3: 'a' is given twice"),
        ("model: {n_layer: 1, n_layer: 2}", "line 1: 'n_layer' is given twice"),
        ("just text", r"expected settings \(name: value\), got str"),
    ],
)
def test_files_that_are_no_settings_are_one_line(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=says) as caught:
        read_yaml(path)
    assert "mine.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_aliases_and_merge_keys_of_ordinary_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: [*a, *a]\n")
    plain = {"x": 1, "y": 2}
    assert read_yaml(path) == {"a": plain, "b": {"x": 1, "y": 3}, "c": [plain, plain]}
    path.write_bytes(b"\xef\xbb\xbfsteps: 3\n")
    assert read_yaml(path) == {"steps": 3}
    path.write_text("# nothing\n")
    assert read_yaml(path) == {}


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "absent", "binary"])
def test_what_is_no_text_file_is_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "mine.yaml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "binary":
        path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"mine\.yaml"):
        TrainConfig.load(path)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"steps": 10**5000}, "steps: an integer below .* got an integer too long to print"),
        ({"seed": 10**30}, "seed: an integer below"),
        ({"model": {"d_model": -(10**30)}}, "model: d_model: an integer below"),
        ({"steps": "x" * 100_000}, r"steps: .*got 'xxxx.*\.\.\.$"),
        ({"x" * 100_000: 1}, r"unknown setting 'xxxx.*\.\.\.$"),
        ({"data": {"corpus": ["y" * 100_000]}}, r"got \['yyyy.*\.\.\.$"),
    ],
)
def test_bad_values_are_quoted_in_part(values: dict, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        TrainConfig.of(values)
    assert len(str(caught.value)) < 400


def test_other_settings_quote_in_part_too() -> None:
    with pytest.raises(InputError, match=r"seeds: an integer below"):
        SelfAblationConfig.of({"seeds": [1, 10**5000]})
    with pytest.raises(InputError, match="min_quotes is for the corpus python") as caught:
        DataConfig.of({"corpus": "z" * 100_000, "min_quotes": 0.1})
    assert len(str(caught.value)) < 400
    with pytest.raises(InputError) as caught:
        PruneConfig.of({"finder": "z" * 100_000})
    assert len(str(caught.value)) < 700
