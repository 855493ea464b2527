"""The bag of words (here: of characters): the mean of all that came before."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from bnlm.models.activation import activation as make_activation
from bnlm.models.block import Block, NormalizationFactory
from bnlm.models.positions import embedded
from bnlm.models.sizes import check_sizes


class BagOfWords(nn.Module):
    """Adds to each position the mean of it and those before it, then a perceptron of that, and maps it to logits.

        x = embedding + position;  x = x + mean(x up to here);  x = x + projection(activation(norm(linear(x))))

    Source: makemore.py's `BoW`.

    Args:
        vocab_size: Number of different characters.
        context: Most positions of a word.
        n_embd: Width.
        n_hidden: Units of the perceptron.
        activation: Name as in `bnlm.models.activation`.
        normalization: Makes the layer after the perceptron's first Linear from its number of features; None for none.
    Raises:
        ValueError: If a size is not a whole number of at least 1, or the activation is unknown.
    """

    sequence: ClassVar[bool] = True

    def __init__(
        self,
        vocab_size: int,
        context: int,
        n_embd: int = 64,
        n_hidden: int = 64,
        activation: str = "tanh",
        normalization: NormalizationFactory | None = None,
    ) -> None:
        super().__init__()
        check_sizes(vocab_size=vocab_size, context=context, n_embd=n_embd, n_hidden=n_hidden)
        self.embedding = nn.Embedding(vocab_size, n_embd)
        self.position_embedding = nn.Embedding(context, n_embd)
        self.hidden = Block(n_embd, n_hidden, normalization, make_activation(activation))
        self.projection = nn.Linear(n_hidden, n_embd)
        self.output = nn.Linear(n_embd, vocab_size)

    def forward(self, idx: Tensor) -> Tensor:
        """Return logits ``(N, T, vocab_size)`` of the character after each of ``idx`` ``(N, T)``; 0 at paddings.

        Raises:
            ValueError: If there are more positions than the model knows.
        """
        x, positions = embedded(idx, self.embedding, self.position_embedding)  # (M, n_embd)
        sums = positions.unpack(x).cumsum(dim=1)  # (N, T, n_embd)
        counts = torch.arange(1, positions.t + 1, dtype=x.dtype, device=x.device)
        x = x + positions.pack(sums / counts.unsqueeze(1))
        x = x + self.projection(self.hidden(x))
        return positions.unpack(self.output(x))
