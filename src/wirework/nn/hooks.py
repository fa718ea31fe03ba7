"""Hooks: a user's functions at sites, which must run and must return a value that fits.

`sites.edited` takes what the library itself puts on a site. A hook comes from a user, so that more
is checked here: one that never ran is an error instead of a result that nothing changed.
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
"""Hooks by site; as pairs, a site may have several, which run in order."""


@contextmanager
def hooked(sites: Mapping[str, Site], hooks: Hooks) -> Iterator[None]:
    """Put hooks on sites for the length of a `with` block; they are gone after it.

    Args:
        sites: of the model, by name.
        hooks: what to run where. An ablation of ours (`mean_ablation`) is put on as it is: a
            sublayer whose output is constant need not run the sites inside.

    Raises:
        InputError: a name is no site of this model, a hook returns something that is no tensor of
            the same shape, or the block ended and a hook had never run.
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
            f"the hook on {pairs[min(waiting)][0]} never ran: the forward pass inside did not "
            "come by that site, or there was none"
        )


def _checked(hook: Hook, site: str, number: int, waiting: set[int]) -> Edit:
    """Return a hook as an edit that checks what the hook returns and notes that it ran."""
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
                f"the hook on {site} turned shape {tuple(x.shape)} into {tuple(value.shape)}"
            )
        return value

    return edit


def _chained(edits: list[Edit]) -> Edit:
    """Return one edit that does several in order."""
    if len(edits) == 1:
        return edits[0]

    def edit(x: Tensor) -> Tensor:
        for one in edits:
            x = one(x)
        return x

    return edit
