"""Rewirings: functions that change the output of a weight matrix, used to cut single edges.

Sites hold nodes; an edge is an entry of a matrix between two sites. Like an edit of a site, a
rewiring is applied inside a `with` block and always removed after it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

from wirework.errors import InputError, nearest
from wirework.nn.sites import MeanAblation, Site

Rewiring = Callable[[Tensor, Tensor], Tensor]
"""Maps input (B, T, in) and output (B, T, out) of a matrix to a new output (B, T, out), token by
token. The input of the embedding are tokens, (B, T)."""


@contextmanager
def rewired(module: nn.Module, rewirings: Mapping[str, Rewiring]) -> Iterator[None]:
    """Change the outputs of weight matrices inside a `with` block.

    Args:
        module: a transformer.
        rewirings: functions, by the name of an `nn.Linear` such as `blocks.3.attn.out`, or of an
            `nn.Embedding`.

    Raises:
        InputError: a name is no matrix of this module, or a rewiring changes the shape.
    """
    kinds = nn.Linear | nn.Embedding
    matrices = {name: part for name, part in module.named_modules() if isinstance(part, kinds)}
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
    """Return whether a module has only mean ablations and rewirings, which treat tokens alike.

    Any other edit or hook may mix tokens or record them, so that all tokens must be computed.
    """
    for part in module.modules():
        edits = part.edits if isinstance(part, Site) else ()
        hooks = part._forward_hooks.values()
        if part._forward_pre_hooks or not all(isinstance(hook, _Hook) for hook in hooks):
            return False
        if not all(type(edit) is MeanAblation for edit in edits):
            return False
    return True
