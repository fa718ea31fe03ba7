"""Timings on a device, for `gpu.py`: steps, AbsTopK, sparse products, a compiled block.

Each function returns the header and the rows of a table. Variants alternate, medians are compared.
"""

import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.step import D_HEAD, VOCAB, Shape, Step, make_step
from wirework.config import ModelConfig
from wirework.nn import Transformer, abs_top_k
from wirework.nn.kernels.triton.choice import installed

Table = tuple[list[str], list[list[str]]]
VARIANTS = ("plain", "dense", "weight-sparse", "plain-sparse")
DENSITIES = (1 / 4, 1 / 16, 1 / 64, 1 / 256)


def wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


def medians(steps: dict[str, Callable[[], object]], rounds: int, device: str) -> dict[str, float]:
    """Return milliseconds of each function, from an idle device to an idle device."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 2):
        for name, step in steps.items():
            wait(device)
            start = time.perf_counter()
            step()
            wait(device)
            if number >= 2:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: median(values) for name, values in times.items()}


def peak_mib(step: Step, device: str) -> float | None:
    """Return the most memory that torch held on the GPU in a step; None on the CPU."""
    if device == "cpu":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    step()
    wait(device)
    return torch.cuda.max_memory_allocated(device) / 2**20


def time_steps(shapes: list[Shape], rounds: int, device: str) -> Table:
    rows = []
    for shape in shapes:
        ms: dict[str, float] = {}
        mib: dict[str, float | None] = {}
        for variant in VARIANTS:  # one model in memory at a time, so that its peak is its own
            step = make_step(variant, shape, device, "bfloat16")
            ms |= medians({variant: step}, rounds, device)
            mib[variant] = peak_mib(step, device)
        for variant in VARIANTS:
            peak = mib[variant]
            rows.append(
                [
                    "x".join(map(str, shape)),
                    variant,
                    f"{ms[variant]:.2f}",
                    f"{ms[variant] / ms['plain']:.2f}",
                    "-" if peak is None else f"{peak:.0f}",
                ]
            )
    return ["width x layers x context x batch", "step", "ms", "/ plain", "peak MiB"], rows


def top_k_and_scatter(x: Tensor, k: int) -> Tensor:
    indices = x.abs().topk(k, sorted=False).indices
    return torch.zeros_like(x).scatter(-1, indices, x.gather(-1, indices))


def time_abs_top_k(widths: list[int], tokens: int, rounds: int, device: str) -> Table:
    rows = []
    for width in widths:
        for dtype in (torch.bfloat16, torch.float32):
            x = torch.randn(tokens, width, device=device).to(dtype).requires_grad_()
            ways: dict[str, Callable[[Tensor, int], Tensor]] = {
                "ours": lambda x, k: abs_top_k(x, k),
                "topk + scatter": top_k_and_scatter,
                "copy": lambda x, _: x * 1,
            }
            if installed() and device != "cpu":
                ways["Triton"] = triton_abs_top_k
            ms = medians(
                {name: partial(both_ways, way, x, width // 4) for name, way in ways.items()},
                rounds,
                device,
            )
            name = str(dtype).removeprefix("torch.")
            rows.append([f"{tokens} x {width}", name, *(f"{ms[way]:.3f}" for way in ways)])
    return ["rows x width", "dtype", *(f"{way} ms" for way in ways)], rows


def both_ways(way: Callable[[Tensor, int], Tensor], x: Tensor, k: int) -> None:
    way(x, k).sum().backward()


class TritonAbsTopK(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, k: int) -> Tensor:
        from wirework.nn.kernels.triton import abs_top_k as kernels

        kept, mask = kernels.select(x, k)
        ctx.save_for_backward(mask)
        return kept

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        from wirework.nn.kernels.triton import abs_top_k as kernels

        return kernels.pass_kept(grads[0], *ctx.saved_tensors), None


def triton_abs_top_k(x: Tensor, k: int) -> Tensor:
    return TritonAbsTopK.apply(x, k)


def sparse_weight(width: int, density: float, device: str) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4 * width, width, generator=generator)
    weight *= torch.rand(weight.shape, generator=generator) < density
    return weight.to(device)


def time_sparse_products(width: int, tokens: int, rounds: int, device: str) -> Table:
    """Time the forward product of an MLP's first matrix, in float32.

    Triton's product is timed on channels x tokens, as its kernel takes them.
    """
    x = torch.randn(tokens, width, device=device)
    rows = []
    for density in DENSITIES:
        weight = sparse_weight(width, density, device)
        ways: dict[str, Callable[[], object]] = {"dense": partial(F.linear, x, weight)}
        compressed, columns = weight.to_sparse_csr(), x.t().contiguous()
        ways["torch CSR"] = partial(torch.matmul, compressed, columns)
        if installed() and device != "cpu":
            ways["Triton"] = triton_product(compressed, columns)
        ms = medians(ways, rounds, device)
        rows.append([f"{density:.4g}", *(f"{ms[way]:.3f}" for way in ways)])
    return ["density", *(f"{way} ms" for way in ways)], rows


def triton_product(matrix: Tensor, columns: Tensor) -> Callable[[], Tensor]:
    from wirework.nn.kernels.triton.sparse_product import product_of_channels

    starts, places = matrix.crow_indices().int(), matrix.col_indices().int()
    values = matrix.values()
    return partial(product_of_channels, columns, starts, places, values)


def time_compiled_block(shape: Shape, rounds: int, device: str, backend: str) -> Table:
    """Time a block, forward and backward, eager and compiled as one graph."""
    d_model, _, n_ctx, batch = shape
    config = ModelConfig(
        vocab_size=VOCAB, d_model=d_model, n_layer=1, n_ctx=n_ctx, d_head=D_HEAD, act_fraction=0.25
    )
    block = Transformer(config).blocks[0].to(device)
    x = torch.randn(batch, n_ctx, d_model, device=device, requires_grad=True)
    compiled = torch.compile(block, backend=backend, fullgraph=True)

    def step_of(module: Callable[[Tensor, None], Tensor]) -> Step:
        def step() -> None:
            with torch.autocast(x.device.type, torch.bfloat16):
                out = module(x, None)
            out.sum().backward()

        return step

    start = time.perf_counter()
    step_of(compiled)()
    wait(device)
    seconds = time.perf_counter() - start
    ms = medians({"eager": step_of(block), "compiled": step_of(compiled)}, rounds, device)
    rows = [[f"{name}", f"{value:.2f}"] for name, value in ms.items()]
    return ["block", "ms"], [*rows, [f"compiling ({backend}), s", f"{seconds:.1f}"]]
