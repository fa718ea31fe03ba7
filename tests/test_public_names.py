"""The names of `wirework` itself: all that the docs name resolves, and nothing loads before."""

import importlib
import inspect
import subprocess
import sys

import pytest

import wirework as ww
from wirework import config


@pytest.mark.parametrize("name", ww.__all__)
def test_every_name_resolves(name: str):
    assert getattr(ww, name) is not None
    assert name in dir(ww)


def test_every_settings_class_is_there():
    classes = {
        name
        for name in config.__all__
        if inspect.isclass(kind := getattr(config, name)) and issubclass(kind, config.Config)
    } - {"Config"}
    assert classes <= set(ww.__all__)
    assert all(getattr(ww, name) is getattr(config, name) for name in classes)


PACKAGES = [
    "bridges", "circuits", "config", "data", "interop", "measures", "nn", "studies", "tasks",
    "training",
]  # fmt: skip

EACH_AS_FIRST = f"""
import importlib, sys
for package in {PACKAGES}:
    import wirework as ww
    print(getattr(ww, package).__name__)
    for name in [name for name in sys.modules if name.partition(".")[0] == "wirework"]:
        del sys.modules[name]
"""


@pytest.mark.slow
def test_a_package_is_an_attribute_without_an_import_of_its_own():
    """In one process, which forgets wirework after each: an interpreter takes long to start."""
    shown = subprocess.check_output([sys.executable, "-c", EACH_AS_FIRST], text=True)
    assert shown.split() == [f"wirework.{package}" for package in PACKAGES]


def test_settings_load_no_torch():
    code = "import sys, wirework as ww; ww.PruneConfig; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_an_unknown_name_is_no_attribute():
    with pytest.raises(AttributeError, match="no attribute 'prun'"):
        ww.prun  # noqa: B018


def test_a_package_and_a_function_of_like_names_are_two():
    assert ww.measures is importlib.import_module("wirework.measures")
    assert callable(ww.measure)
    assert callable(ww.task)
    assert callable(ww.train)
