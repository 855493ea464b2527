"""What a model's logits are worth: the loss that is trained on, and the metrics of a split."""

import math
import statistics
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from bnlm.data import IGNORED


class SplitMetrics(nn.Module):
    """Loss, perplexity, bits per character and accuracy over one split, pooled over batches and processes."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        # float64: 180,000 examples. A nan is put in for nan: the other strategies leave it out, or ("disable") weights.
        self.loss = MeanMetric(nan_strategy=math.nan).set_dtype(torch.float64)
        self.accuracy = MulticlassAccuracy(vocab_size, average="micro")

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Add a batch: logits `(N, vocab_size)` and targets `(N,)`, or those of sequences (see `predictions`)."""
        logits, targets = predictions(logits, targets)
        self.loss.update(F.cross_entropy(logits.float(), targets).double(), weight=len(targets))
        self.accuracy.update(logits, targets)

    def compute(self) -> dict[str, float]:
        """Return loss (nats per character), perplexity, bits_per_char and accuracy (fraction)."""
        loss = float(self.loss.compute())
        return {**derived_metrics(loss), "accuracy": float(self.accuracy.compute())}

    def reset(self) -> None:
        self.loss.reset()
        self.accuracy.reset()


def predictions(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits `(M, vocab_size)` and targets `(M,)` of the predictions that count.

    Of windows, `(N, vocab_size)` and `(N,)`, that is all of them; of sequences, `(N, T, vocab_size)` and `(N, T)`,
    those whose target is not `IGNORED`. They are taken out before the loss, so that nothing that looks at what goes
    into it sees a padding.
    """
    if targets.dim() == 1:
        return logits, targets
    flat = targets.flatten()
    counted = (flat != IGNORED).nonzero().squeeze(1)
    return logits.flatten(0, 1).index_select(0, counted), flat.index_select(0, counted)


def loss_of(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy, nats per character, of the `predictions` that count."""
    return F.cross_entropy(*predictions(logits, targets))


def derived_metrics(loss: float) -> dict[str, float]:
    """Return the loss in nats per character and what follows from it."""
    # A diverged loss overflows exp: its perplexity is inf, not an error.
    perplexity = math.exp(loss) if loss < 700 else (math.inf if loss >= 700 else math.nan)
    return {"loss": loss, "perplexity": perplexity, "bits_per_char": loss / math.log(2)}


def over_replicas(of_each: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the metrics of one network, or the mean over several, with `NAME_std` and `NAME_replica_0`, ... beside it.

    The standard deviation has n - 1 in its denominator.
    """
    if len(of_each) == 1:
        return dict(of_each[0])
    found: dict[str, float] = {}
    for name in of_each[0]:
        values = [metrics[name] for metrics in of_each]
        finite = all(map(math.isfinite, values))
        found[name] = sum(values) / len(values)
        found[f"{name}_std"] = statistics.stdev(values) if finite else math.nan
        found.update({f"{name}_replica_{index}": value for index, value in enumerate(values)})
    return found
