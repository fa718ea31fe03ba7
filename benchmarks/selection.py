"""Time of the AbsTopK forward pass, compared with `torch.topk` and a copy of the same tensor.

    python benchmarks/selection.py [--rounds 15]

Rows of one training batch (4096 tokens), a quarter of each row kept. Medians of interleaved runs.
"""

import argparse

import torch
from step import interleaved_medians, machine

from wirework.nn import abs_top_k

TOKENS = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    print(machine())
    heads = ("dtype", "ours ms", "topk ms", "topk/ours", "ours/copy")
    print(f"{'width':>6}" + "".join(f"{head:>10}" for head in heads))
    for width in (256, 512, 1024, 2048):
        for dtype in (torch.bfloat16, torch.float32):
            x = torch.randn(TOKENS, width).to(dtype)
            out, k = torch.empty_like(x), width // 4
            ms = interleaved_medians(
                {
                    "ours": lambda x=x, k=k: abs_top_k(x, k),
                    "topk": lambda x=x, k=k: x.abs().topk(k, sorted=False),
                    "copy": lambda x=x, out=out: out.copy_(x),
                },
                options.rounds,
            )
            print(
                f"{width:6}{str(dtype).removeprefix('torch.'):>10}{ms['ours']:10.2f}"
                f"{ms['topk']:10.2f}{ms['topk'] / ms['ours']:10.1f}"
                f"{ms['ours'] / ms['copy']:10.1f}"
            )


if __name__ == "__main__":
    main()
