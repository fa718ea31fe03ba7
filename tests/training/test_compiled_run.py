import pytest
import torch

from wirework.training import Prior, train


class Compiled(Prior):
    """Compile each block; the evaluations between the steps put edits on its sites."""

    def wrap_model(self, transformer):
        for block in transformer.blocks:
            block.compile(backend="aot_eager")
        return transformer


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*not a leaf Tensor:UserWarning")  # by torch, which hides it
def test_a_run_with_compiled_blocks_ends_with_the_same_model(settings, capsys):
    changes = {"model": {"act_fraction": 0.25}, "eval_every": 2}
    torch._dynamo.reset()
    models = [
        train(settings(name, **changes), progress=False, priors=priors).model.transformer
        for name, priors in (("eager", []), ("compiled", [Compiled()]))
    ]
    torch._dynamo.reset()
    parameters = (dict(model.named_parameters()) for model in models)
    expected, got = parameters
    assert expected.keys() == got.keys()
    for name, parameter in expected.items():
        torch.testing.assert_close(parameter, got[name], rtol=1e-4, atol=1e-5)
