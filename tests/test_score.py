"""How likely a model finds given words."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from bnlm.data import IGNORED, Vocabulary, sequences, windows
from bnlm.metrics import loss_of
from bnlm.models import MLP, Recurrent, Transformer
from bnlm.normalization import BatchNorm
from bnlm.score import score

VOCABULARY = Vocabulary("abé")
WORDS = ["abba", "é", "baéb"]


@pytest.mark.parametrize("model", [MLP(4, 3, 5, [6], normalization=BatchNorm), Recurrent(4, 6, "gru", 5, 6)])
def test_scores_are_the_models_log_probabilities(model: nn.Module) -> None:
    is_sequence = isinstance(model, Recurrent)
    model.eval()
    cut = sequences if is_sequence else windows
    inputs, targets = cut(WORDS, VOCABULARY, 6 if is_sequence else 3)
    with torch.no_grad():
        logits = model(inputs)
        loss = loss_of(logits, targets).item()
    model.train()
    scores = score(model, VOCABULARY, 6 if is_sequence else 3, WORDS)
    assert model.training
    assert [found.characters for found in scores] == [[*word, "."] for word in WORDS]
    each = torch.tensor([value for found in scores for value in found.log_probabilities])
    kept = targets != IGNORED
    expected = logits[kept].log_softmax(1)[torch.arange(len(each)), targets[kept]]
    assert_close(each, expected, rtol=1e-5, atol=1e-6)
    assert -each.mean().item() == pytest.approx(loss, rel=1e-5)
    assert scores[0].total == pytest.approx(each[:5].sum().item())
    assert scores[0].loss == pytest.approx(-each[:5].mean().item())


def test_probabilities_of_all_words_of_a_length_sum_to_that_of_the_length() -> None:
    class Fair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logits = nn.Parameter(torch.zeros(4))

        def forward(self, idx: torch.Tensor) -> torch.Tensor:
            return self.logits.expand(len(idx), 4)

    scores = score(Fair(), VOCABULARY, 3, [a + b for a in "abé" for b in "abé"])
    assert sum(math.exp(found.total) for found in scores) == pytest.approx(9 / 64)
    assert len(score(Fair(), VOCABULARY, 3, ["ab"], has_end=False)[0].log_probabilities) == 2


def test_accents_are_composed_and_mistakes_are_said() -> None:
    model = Transformer(4, 5, 1, 1, 4)
    assert score(model, VOCABULARY, 5, ["e\u0301"])[0].word == "é"
    with pytest.raises(ValueError, match=r"words: 'axbz' has unknown characters 'x', 'z'; known are 'abé'"):
        score(model, VOCABULARY, 5, ["a", "axbz"])
    with pytest.raises(ValueError, match=r"words: 'ababa' has 5 characters; the model sees 4 at most"):
        score(model, VOCABULARY, 5, ["ababa"])
    with pytest.raises(ValueError, match="an empty text has no character"):
        score(model, VOCABULARY, 5, [""], has_end=False)
