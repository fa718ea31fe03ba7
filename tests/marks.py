"""Marks of tests that `make slow-test` runs and `make test` does not."""

from typing import Any

import pytest
from _pytest.mark import ParameterSet


def slow_cases(*cases: Any) -> list[ParameterSet]:
    """Return cases for `pytest.mark.parametrize` that only `make slow-test` runs.

    For matrices of which one case of each kind stays in the default run.

    Args:
        cases: a value each, or a tuple of values where there are several parameters.
    """
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)
        for case in cases
    ]
