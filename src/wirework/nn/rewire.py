"""Changing what a weight matrix gives, from what it reads: where single edges are cut.

Sites hold nodes; an edge lives between two of them, in a matrix. Like a site's edit, a rewiring
is there for the length of a `with` block and gone after it whatever happens.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

from wirework.errors import InputError, nearest
from wirework.nn.sites import MeanAblation, Site

Rewiring = Callable[[Tensor, Tensor], Tensor]
"""Takes what a matrix reads (B, T, in) and gives (B, T, out); returns what it should give, of each
token by itself."""


@contextmanager
def rewired(module: nn.Module, rewirings: Mapping[str, Rewiring]) -> Iterator[None]:
    """Change what the named matrices below `module` give, for the length of a `with` block.

    Args:
        module: a transformer.
        rewirings: by the name of an `nn.Linear`, as `blocks.3.attn.out`.

    Raises:
        InputError: a name is no matrix of this module.
    """
    matrices = {name: part for name, part in module.named_modules() if isinstance(part, nn.Linear)}
    with ExitStack() as stack:
        for name, rewiring in rewirings.items():
            if name not in matrices:
                raise InputError(f"no matrix {name!r} in this model{nearest(name, matrices)}")
            handle = matrices[name].register_forward_hook(_Hook(rewiring))
            stack.callback(handle.remove)
        yield


class _Hook:
    def __init__(self, rewiring: Rewiring) -> None:
        self.rewiring = rewiring

    def __call__(self, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        changed = self.rewiring(inputs[0], output)
        if changed.shape != output.shape:
            raise InputError(
                f"a rewiring turned shape {tuple(output.shape)} into {tuple(changed.shape)}"
            )
        return changed


def same_for_all_tokens(module: nn.Module) -> bool:
    """Whether what is put on a module and its parts treats each token alike, and nobody watches.

    Mean ablation and rewirings do; of any other edit or hook that cannot be known.
    """
    for part in module.modules():
        edits = part.edits if isinstance(part, Site) else ()
        hooks = part._forward_hooks.values()
        if part._forward_pre_hooks or not all(isinstance(hook, _Hook) for hook in hooks):
            return False
        if not all(type(edit) is MeanAblation for edit in edits):
            return False
    return True
