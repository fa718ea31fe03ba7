"""Compile every Triton kernel for CUDA, which needs no GPU; `test_triton_kernels.py` starts it."""

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from wirework.nn.kernels.triton import abs_top_k, sparse_product

CAPABILITIES = (80, 90)


def compile_for_cuda(kernel, types, constants, **options):
    names = kernel.arg_names
    for capability in CAPABILITIES:
        source = ASTSource(
            fn=kernel,
            signature={name: types.get(name, "constexpr") for name in names},
            constexprs={(names.index(name),): value for name, value in constants.items()},
        )
        compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
        assert compiled.asm["cubin"]
        print(kernel.__name__, capability, len(compiled.asm["cubin"]))


def main():
    for bits, integer in ((31, "i32"), (15, "i16")):
        rows, whole = f"*{integer}", {"width": "i32", "k": "i32"}
        for columns, warps in ((256, 1), (4096, 8), (16384, 32)):
            compile_for_cuda(
                abs_top_k._select_kernel,
                {"rows": rows, "kept": rows, "mask": "*u8", **whole},
                {"BITS": bits, "COLUMNS": columns},
                num_warps=warps,
            )
        compile_for_cuda(
            abs_top_k._pass_kernel,
            {"grad": rows, "mask": "*u8", "passed": rows, "size": "i32"},
            {"SIZE": 1024},
        )
    indices = {"starts": "*i32", "columns": "*i32", "rows": "*i32", "n_tokens": "i32"}
    for kind in ("*fp32", "*bf16", "*fp16"):
        floats = {**indices, "x": kind, "grad": kind}
        for values in {"*fp32": 0, kind: 0}:
            types = {**floats, "values": values, "out": kind}
            compile_for_cuda(sparse_product._product_kernel, types, {"TOKENS": 256})
        types = {**floats, "out": "*fp32"}
        compile_for_cuda(sparse_product._gradient_kernel, types, {"TOKENS": 256})


if __name__ == "__main__":
    main()
