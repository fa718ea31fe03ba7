"""GFLOP/s of each library for the products of a training step, and the chosen library.

One thread unless OMP_NUM_THREADS is set. To see roughly what an AVX2 machine would choose, put
`ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2
OPENBLAS_CORETYPE=Haswell` before the command.
With one thread its CPU time is measured, so that other processes disturb little. The cache of
choices is neither read nor written.
"""

import argparse
import os
from functools import partial
from tempfile import TemporaryDirectory

SHAPES = (
    (16, 64, 128, 512),  # the demo's MLP: sequences, tokens of each, inputs, outputs
    (16, 64, 512, 128),
    (16, 64, 128, 384),
    (2, 64, 128, 2048),  # a piece of its unembedding
    (32, 128, 256, 1024),
    (16, 256, 512, 2048),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="of the whole measurement")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        measure(args.rounds)


def measure(rounds: int) -> None:
    import torch

    from wirework import fastest
    from wirework.nn.kernels import products

    print(fastest.machine(torch.get_num_threads()))
    print(f"{'tokens x inputs -> outputs':>26} {'product':>14}  GFLOP/s")
    for images, tokens, inputs, outputs in SHAPES:
        rows = images * tokens
        flops = 2 * rows * inputs * outputs
        x, weight = torch.rand(images, tokens, inputs), torch.rand(outputs, inputs)
        grad, flat = torch.rand(images, tokens, outputs), (rows, -1)
        classes = {
            "output": (x.view(flat), weight.t()),
            "input's grad": (grad.view(flat), weight),
            "weight's grad": (grad.view(flat).t(), x.view(flat)),
        }
        for name, operands in classes.items():
            ways = {
                library: partial(products._BY[library], *operands, None)
                for library in products.available()
            }
            if name == "weight's grad":
                ways["convolution"] = partial(products._by_convolution, grad, x)
                chosen = products.gradient_library(x.shape, outputs)
            else:
                layouts = "".join(map(products.layout, operands))
                sizes = (*operands[0].shape, operands[1].shape[1])
                chosen = products.library_for(layouts, *sizes)
            times = [fastest.milliseconds(ways) for _ in range(rounds)]
            best = {way: min(one[way] for one in times) for way in ways}
            shown = ", ".join(f"{way} {flops / 1e6 / ms:.0f}" for way, ms in best.items())
            label = f"{rows} x {inputs} -> {outputs}"
            print(f"{label:>26} {name:>14}  {shown}; chosen: {chosen}", flush=True)


if __name__ == "__main__":
    main()
