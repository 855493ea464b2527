"""The multi-layer perceptron over a fixed window of characters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from bnlm.models.activation import activation as make_activation
from bnlm.models.block import Block, NormalizationFactory
from bnlm.models.sizes import check_sizes, is_size


class MLP(nn.Module):
    """Embeds each character of the window, joins the embeddings, and maps them through blocks to logits.

    Source: Bengio et al. 2003, "A Neural Probabilistic Language Model", without the direct connections; with
    normalization as in Karpathy, makemore part 3.

    Args:
        vocab_size: Number of different characters.
        context: Characters in a window.
        n_embd: Numbers that describe a character.
        hidden_sizes: Units of each hidden layer; empty for a linear model on the embeddings.
        activation: Name as in `bnlm.models.activation`.
        normalization: Makes the layer after each hidden Linear from its number of features; None for none.
        normalize_output: Whether the output Linear is normalised too, as in the lecture's deep network.
    Raises:
        ValueError: If a size is not a whole number of at least 1, or the activation is unknown.
    """

    def __init__(
        self,
        vocab_size: int,
        context: int,
        n_embd: int = 10,
        hidden_sizes: Sequence[int] = (200,),
        activation: str = "tanh",
        normalization: NormalizationFactory | None = None,
        normalize_output: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(vocab_size=vocab_size, context=context, n_embd=n_embd)
        is_list = isinstance(hidden_sizes, Sequence) and not isinstance(hidden_sizes, str)
        if not is_list or not all(map(is_size, hidden_sizes)):
            raise ValueError(
                f"model.hidden_sizes={hidden_sizes!r}: expected a list of whole numbers of at least 1, one per hidden "
                "layer, such as [200]; [] for no hidden layer."
            )
        sizes = [context * n_embd, *hidden_sizes]
        self.embedding = nn.Embedding(vocab_size, n_embd)
        self.blocks = nn.Sequential(
            *(Block(n_in, n_out, normalization, make_activation(activation)) for n_in, n_out in pairwise(sizes))
        )
        self.output = Block(sizes[-1], vocab_size, normalization if normalize_output else None)

    def forward(self, idx: Tensor) -> Tensor:
        """Return logits ``(N, vocab_size)`` of the character after each window ``idx`` ``(N, context)``, int64."""
        emb = self.embedding(idx)  # (N, context, n_embd)
        hidden = self.blocks(emb.flatten(1))  # (N, hidden_sizes[-1])
        return self.output(hidden)
