"""The transformer: every position looks at all before it."""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from bnlm.models.activation import activation as make_activation
from bnlm.models.block import Block, NormalizationFactory, make_normalization
from bnlm.models.positions import Positions, embedded
from bnlm.models.sizes import check_sizes


class Transformer(nn.Module):
    """A decoder with pre-normalization: embeddings of character and place, blocks, a last normalization, logits.

    Source: Vaswani et al. 2017, arXiv 1706.03762; Radford et al. 2019 (GPT-2: pre-normalization, learned positions);
    makemore.py's `Transformer`, whose 0.2 M parameters it has with the defaults and normalization=layer.

    Args:
        vocab_size: Number of different characters.
        context: Most positions of a word.
        n_layer: Number of blocks.
        n_head: Heads of each attention; they divide `n_embd`.
        n_embd: Width.
        activation: Between the two Linears of a block's perceptron; a name as in `bnlm.models.activation`.
        normalization: Makes a layer from its number of features; None for none.
    Raises:
        ValueError: If a size is not a whole number of at least 1, the heads do not divide the width, or the activation
            is unknown.
    """

    normalization: nn.Module | None
    sequence: ClassVar[bool] = True
    residual: ClassVar[str] = r"blocks\.\d+\.(attention|mlp)\.projection"
    """The last layer of every residual branch, whose weights an initialisation divides by sqrt(2 * n_layer)."""

    def __init__(
        self,
        vocab_size: int,
        context: int,
        n_layer: int = 4,
        n_head: int = 4,
        n_embd: int = 64,
        activation: str = "gelu",
        normalization: NormalizationFactory | None = None,
    ) -> None:
        super().__init__()
        check_sizes(vocab_size=vocab_size, context=context, n_layer=n_layer, n_head=n_head, n_embd=n_embd)
        if n_embd % n_head:
            raise ValueError(f"model.n_head={n_head}: expected a number that divides model.n_embd={n_embd}.")
        self.embedding = nn.Embedding(vocab_size, n_embd)
        self.position_embedding = nn.Embedding(context, n_embd)
        self.blocks = nn.ModuleList(
            TransformerBlock(n_embd, n_head, make_activation(activation), normalization) for _ in range(n_layer)
        )
        self.register_module("normalization", make_normalization(normalization, n_embd))
        self.output = nn.Linear(n_embd, vocab_size, bias=False)

    def forward(self, idx: Tensor) -> Tensor:
        """Return logits ``(N, T, vocab_size)`` of the character after each of ``idx`` ``(N, T)``; 0 at paddings.

        Raises:
            ValueError: If there are more positions than the model knows.
        """
        x, positions = embedded(idx, self.embedding, self.position_embedding)  # (M, n_embd)
        for block in self.blocks:
            x = block(x, positions)
        if self.normalization is not None:
            x = self.normalization(x)
        return positions.unpack(self.output(x))


class TransformerBlock(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``."""

    attention_normalization: nn.Module | None
    mlp_normalization: nn.Module | None

    def __init__(
        self, n_embd: int, n_head: int, activation: nn.Module, normalization: NormalizationFactory | None
    ) -> None:
        super().__init__()
        self.register_module("attention_normalization", make_normalization(normalization, n_embd))
        self.attention = CausalAttention(n_embd, n_head)
        self.register_module("mlp_normalization", make_normalization(normalization, n_embd))
        self.mlp = nn.Sequential(
            OrderedDict(
                hidden=Block(n_embd, 4 * n_embd, activation=activation), projection=nn.Linear(4 * n_embd, n_embd)
            )
        )

    def forward(self, x: Tensor, positions: Positions) -> Tensor:
        """Map rows ``(M, n_embd)`` to such rows."""
        normalized = x if self.attention_normalization is None else self.attention_normalization(x)
        x = x + self.attention(normalized, positions)
        normalized = x if self.mlp_normalization is None else self.mlp_normalization(x)
        return x + self.mlp(normalized)


class CausalAttention(nn.Module):
    """Self-attention of several heads in which a position sees itself and those before it."""

    def __init__(self, n_embd: int, n_head: int) -> None:
        super().__init__()
        self.n_head = n_head
        self.qkv = nn.Linear(n_embd, 3 * n_embd)
        self.projection = nn.Linear(n_embd, n_embd)

    def forward(self, x: Tensor, positions: Positions) -> Tensor:
        """Map rows ``(M, n_embd)`` to such rows."""
        padded = positions.unpack(self.qkv(x))  # (N, T, 3 * n_embd); paddings lie behind all that looks at them
        heads = padded.view(positions.n, positions.t, 3, self.n_head, -1).permute(2, 0, 3, 1, 4)
        query, key, value = heads.unbind()  # (N, n_head, T, n_embd / n_head) each
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.projection(positions.pack(seen.transpose(1, 2).flatten(2)))
