"""Baseline: a weight-sparse GPT with the operations that public code uses.

`torch.topk` and `scatter` at all eight sites of a block, the sink as an additional key under an
additive mask, logits of the whole batch, a full `topk` of every matrix and of every neuron after
the step. Sizes and sparsity are the same as ours; bf16 autocast.
Shapes: B sequences, T tokens, D width, H heads, K channels of a head.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACT_FRACTION, L0_FRACTION, FLOOR = 1 / 4, 1 / 64, 4


class PlainSparseGPT(nn.Module):
    def __init__(self, vocab: int, d_model: int, n_layer: int, d_head: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, d_model)
        self.blocks = nn.ModuleList(PlainSparseBlock(d_model, d_head) for _ in range(n_layer))
        self.norm = nn.RMSNorm(d_model)
        self.head = nn.Linear(d_model, vocab, bias=False)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)
        self.bigram = nn.Parameter(torch.zeros(vocab, vocab))

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x)) + self.bigram[tokens]
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    @torch.no_grad()
    def project_(self) -> None:
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2 and name != "bigram":
                _keep_largest_(parameter)


class PlainSparseBlock(nn.Module):
    def __init__(self, d_model: int, d_head: int) -> None:
        super().__init__()
        self.n_head = d_model // d_head
        self.norm1, self.norm2 = nn.RMSNorm(d_model), nn.RMSNorm(d_model)
        self.qkv, self.out = nn.Linear(d_model, 3 * d_model), nn.Linear(d_model, d_model)
        self.up, self.down = nn.Linear(d_model, 4 * d_model), nn.Linear(4 * d_model, d_model)
        self.sink = nn.Parameter(torch.zeros(self.n_head))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = map(_top_k, self.qkv(_top_k(self.norm1(x))).chunk(3, -1))
        q, k, v = (t.unflatten(-1, (self.n_head, -1)).transpose(1, 2) for t in (q, k, v))
        y = self._attend(q, k, v).transpose(1, 2).flatten(2)
        x = x + _top_k(self.out(y))
        neurons = _top_k(F.gelu(self.up(_top_k(self.norm2(x)))))
        return x + _top_k(self.down(neurons))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        length = q.shape[2]
        k, v = (torch.cat([torch.zeros_like(t[:, :, :1]), t], 2) for t in (k, v))
        sees = torch.ones(length, length + 1, dtype=torch.bool, device=q.device).tril(1)
        mask = torch.zeros_like(sees, dtype=q.dtype).masked_fill(~sees, -torch.inf)
        first = F.one_hot(torch.tensor(0, device=q.device), length + 1).to(q.dtype)
        mask = mask + first * self.sink.to(q.dtype)[None, :, None, None]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def _top_k(x: Tensor) -> Tensor:
    indices = x.abs().topk(int(x.shape[-1] * ACT_FRACTION), sorted=False).indices
    return torch.zeros_like(x).scatter(-1, indices, x.gather(-1, indices))


def _keep_largest_(weight: Tensor) -> None:
    """Keep the `FLOOR` largest of each row, then the largest others, up to the target."""
    size = weight.abs()
    mask = torch.zeros_like(weight, dtype=torch.bool)
    mask.scatter_(1, size.topk(FLOOR, 1, sorted=False).indices, True)
    room = int(weight.numel() * L0_FRACTION) - int(mask.sum())
    if room > 0:
        rest = size.masked_fill(mask, -1).flatten()
        mask.view(-1)[rest.topk(room, sorted=False).indices] = True
    weight.mul_(mask.float())
