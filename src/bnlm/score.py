"""How likely a model finds given words, character by character."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bnlm.data import END, Vocabulary, composed


@dataclass(frozen=True)
class WordScore:
    """Log-probabilities (nats) of a word's characters, each given all before it; the last is the end mark's, `.`."""

    word: str
    characters: list[str]
    log_probabilities: list[float]

    @property
    def total(self) -> float:
        """Log-probability of the whole word."""
        return sum(self.log_probabilities)

    @property
    def loss(self) -> float:
        """Nats per character, the end mark included: what `bnlm.evaluate` says of a split, for this word."""
        return -self.total / len(self.log_probabilities)


@torch.inference_mode()
def score(
    model: nn.Module,
    vocabulary: Vocabulary,
    context: int,
    words: Sequence[str],
    start: int = END,
    has_end: bool = True,
) -> list[WordScore]:
    """Return the scores of `words`, with `model` in evaluation mode.

    Args:
        model, context: As in `bnlm.sample.sample`.
        start: The id before the first character.
        has_end: Whether the end of a word is predicted too; not so for running text.
    Raises:
        ValueError: If a character is not in the vocabulary, there is nothing to predict, or a word is longer than a
            sequence model can see.
    """
    device = next(model.parameters()).device
    is_sequence = getattr(model, "sequence", False)
    was_training = model.training
    model.eval()
    scores = []
    try:
        for word in map(composed, words):
            try:
                ids = vocabulary.encode(word) + [END] * has_end
            except ValueError as error:
                raise ValueError(f"words: {word!r} has {error}") from None
            if not ids:
                raise ValueError(f"words={list(words)!r}: an empty text has no character to predict.")
            if is_sequence and len(ids) > context:
                raise ValueError(
                    f"words: {word!r} has {len(word)} characters; the model sees {context - has_end} at most."
                )
            logits = model(_inputs(ids, context, start, is_sequence).to(device)).double().cpu()
            logits = logits[0] if is_sequence else logits  # (characters, vocab_size)
            found = logits.log_softmax(dim=1)[torch.arange(len(ids)), torch.tensor(ids)].tolist()
            scores.append(WordScore(word, [*word, *["."] * has_end], found))
    finally:
        model.train(was_training)
    return scores


def _inputs(ids: list[int], context: int, start: int, is_sequence: bool) -> Tensor:
    """Return what the model sees before each of `ids`: one sequence `(1, T)`, or windows `(T, context)`."""
    if is_sequence:
        return torch.tensor([[start, *ids[:-1]]])
    return torch.tensor([start] * context + ids[:-1]).unfold(0, context, 1)
