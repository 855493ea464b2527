"""The table of which character follows which: trained and counted they are the same."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from bnlm.data import Vocabulary, windows
from bnlm.models import Bigram, bigram_table

WORDS = ["ava", "mia", "emma", "olivia", "ada", "amelia", "eva", "noah", "liam"]


def test_training_comes_to_the_counted_table_and_its_loss() -> None:
    vocabulary = Vocabulary.from_words(WORDS)
    contexts, targets = windows(WORDS, vocabulary, context=3)
    table = bigram_table(contexts[:, -1], targets, len(vocabulary))
    counted = F.nll_loss(table[contexts[:, -1]], targets)
    torch.manual_seed(0)
    model = Bigram(len(vocabulary), 3).double()
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=500, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(contexts), targets)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert_close(F.cross_entropy(model(contexts), targets), counted, rtol=1e-5, atol=0)
    trained = model.logits.weight.detach().softmax(dim=1)
    seen = contexts[:, -1].unique()
    assert_close(trained[seen], table.exp()[seen], rtol=0, atol=1e-3)


def test_counting_by_hand() -> None:
    table = bigram_table(torch.tensor([0, 0, 0, 1]), torch.tensor([1, 1, 2, 0]), 3).exp()
    third = 1 / 3
    assert_close(table, torch.tensor([[0, 2 / 3, third], [1, 0, 0], [third] * 3], dtype=torch.float64))
    smoothed = bigram_table(torch.tensor([0, 0, 0, 1]), torch.tensor([1, 1, 2, 0]), 3, smoothing=1).exp()
    assert_close(smoothed[0], torch.tensor([1 / 6, 3 / 6, 2 / 6], dtype=torch.float64))
    with pytest.raises(ValueError, match=r"smoothing=-1: expected a number of at least 0"):
        bigram_table(torch.tensor([0]), torch.tensor([1]), 3, smoothing=-1)


def test_it_looks_at_the_last_character_only() -> None:
    model = Bigram(5, 2)
    assert_close(model(torch.tensor([[3, 1], [4, 1]])), model.logits.weight[[1, 1]], rtol=0, atol=0)
