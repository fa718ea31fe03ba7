"""Hooks: functions of users at sites, with checks that they ran and returned a value that fits.

`sites.edited` applies the library's own edits without these checks. A hook that never ran is an
error here; otherwise its user would take an unchanged result for a result of the hook.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from wirework.errors import InputError
from wirework.nn.sites import Edit, NodeAblation, Site, edited, look_up

Hook = Callable[[Tensor], Tensor | None]
"""Takes the (B, T, width) value at a site; returns its replacement, or None to leave it."""
Hooks = Mapping[str, Hook] | Iterable[tuple[str, Hook]]
"""Hooks by site, or pairs of site and hook; several hooks of a site run in order."""


@contextmanager
def hooked(sites: Mapping[str, Site], hooks: Hooks) -> Iterator[None]:
    """Apply hooks at sites inside a `with` block; they are removed after it.

    Args:
        sites: sites of the model, by name.
        hooks: functions, by site. The library's own ablations (`mean_ablation`) are not checked: a
            sublayer with a constant output does not run the sites inside it.

    Raises:
        InputError: a name is no site of this model; a hook returns something other than None or a
            tensor of the same shape; or a hook has not run by the end of the block.
    """
    pairs = list(hooks.items() if isinstance(hooks, Mapping) else hooks)
    look_up(sites, (site for site, _ in pairs))
    waiting = {i for i, (_, hook) in enumerate(pairs) if not isinstance(hook, NodeAblation)}
    edits: dict[str, list[Edit]] = {}
    for i, (site, hook) in enumerate(pairs):
        edits.setdefault(site, []).append(_checked(hook, site, i, waiting))
    with edited(sites, {site: _chained(several) for site, several in edits.items()}):
        yield
    if waiting:
        raise InputError(
            f"the hook on {pairs[min(waiting)][0]} never ran: the forward pass in the block did "
            "not reach that site, or there was no forward pass"
        )


def _checked(hook: Hook, site: str, number: int, waiting: set[int]) -> Edit:
    """Return an edit that runs a hook, checks its result and records that it ran."""
    if isinstance(hook, NodeAblation):
        return hook

    def edit(x: Tensor) -> Tensor:
        waiting.discard(number)
        value = hook(x)
        if value is None:
            return x
        if not isinstance(value, torch.Tensor):
            raise InputError(
                f"the hook on {site} returned {type(value).__name__}: return a tensor of shape "
                f"{tuple(x.shape)}, or None to leave the value"
            )
        if value.shape != x.shape:
            raise InputError(
                f"the hook on {site} returned shape {tuple(value.shape)}: it must keep "
                f"shape {tuple(x.shape)}"
            )
        return value

    return edit


def _chained(edits: list[Edit]) -> Edit:
    """Return one edit that applies several in order."""
    if len(edits) == 1:
        return edits[0]

    def edit(x: Tensor) -> Tensor:
        for part in edits:
            x = part(x)
        return x

    return edit
