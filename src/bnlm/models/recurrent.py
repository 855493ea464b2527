"""Recurrent models: a state is carried from character to character."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from bnlm.models.block import NormalizationFactory
from bnlm.models.cells import GRUCell, LSTMCell, RNNCell
from bnlm.models.positions import Positions
from bnlm.models.sizes import check_sizes

CELLS: dict[str, type[RNNCell] | type[GRUCell] | type[LSTMCell]] = {"rnn": RNNCell, "gru": GRUCell, "lstm": LSTMCell}


class Recurrent(nn.Module):
    """Embeds each character, runs a cell along the word, and maps every state to logits of what comes next.

    Source: makemore.py's `RNN` (Mikolov et al. 2010), with torch.nn's form of the cells and a state that begins with
    zeros (there: learned).

    Args:
        vocab_size: Number of different characters.
        context: Not used: a state has no length. As every model is given it.
        cell: rnn, gru or lstm.
        n_embd: Numbers that describe a character.
        n_hidden: Size of the state.
        normalization: Makes the layer over the cell's inputs from its number of features; None for none.
    Raises:
        ValueError: If a size is not a whole number of at least 1, or there is no such cell.
    """

    sequence: ClassVar[bool] = True

    def __init__(
        self,
        vocab_size: int,
        context: int,
        cell: Literal["rnn", "gru", "lstm"] = "rnn",
        n_embd: int = 64,
        n_hidden: int = 64,
        normalization: NormalizationFactory | None = None,
    ) -> None:
        super().__init__()
        check_sizes(vocab_size=vocab_size, n_embd=n_embd, n_hidden=n_hidden)
        if cell not in CELLS:
            raise ValueError(f"model.cell={cell!r}: expected one of {', '.join(CELLS)}.")
        self.embedding = nn.Embedding(vocab_size, n_embd)
        self.cell = CELLS[cell](n_embd, n_hidden, normalization)
        self.output = nn.Linear(n_hidden, vocab_size)

    def forward(self, idx: Tensor) -> Tensor:
        """Return logits ``(N, T, vocab_size)`` of the character after each of ``idx`` ``(N, T)``; 0 at paddings."""
        positions = Positions(idx)
        steps = positions.in_steps()
        emb = self.embedding(positions.pack(idx))  # (M, n_embd)
        states = self.cell(emb, steps)  # (M, n_hidden)
        return positions.unpack(self.output(states))
