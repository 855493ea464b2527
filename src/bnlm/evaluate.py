"""python -m bnlm.evaluate checkpoint=PATH [split=val]: how well a trained model predicts a split."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bnlm.checkpoint import build_data, load_model
from bnlm.command_line import parse, usage
from bnlm.config import ConfigError
from bnlm.language_model import SplitMetrics

SPLITS = ("train", "val", "test")


@dataclass
class Options:
    checkpoint: str = field(metadata={"help": "path of a .ckpt file"})
    split: str = field(default="val", metadata={"help": "train, val or test"})


@torch.inference_mode()
def evaluate(model: nn.Module, vocab_size: int, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Return loss (nats per character), perplexity, bits_per_char and accuracy of `model` in evaluation mode.

    Args:
        model: Maps contexts `(N, context)` to logits `(N, vocab_size)`.
        batches: Contexts `(N, context)` and targets `(N,)`, together the whole split (this rank's share of it).
    """
    was_training = model.training
    model.eval()
    metrics = SplitMetrics(vocab_size).to(next(model.parameters()).device)
    for contexts, targets in batches:
        metrics.update(model(contexts), targets)
    model.train(was_training)
    return metrics.compute()


def main() -> None:
    """Run the command line."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(usage(Options, "bnlm.evaluate", "Prints how well a trained model predicts the words of a split."))
        return
    try:
        options = parse(Options, sys.argv[1:])
        if options.split not in SPLITS:
            raise ConfigError(f"split={options.split}: expected one of {', '.join(SPLITS)}.")
        model, vocabulary, config = load_model(options.checkpoint)
        data = build_data(config, options.checkpoint)
        if data.vocabulary != vocabulary:
            raise ConfigError(
                f"checkpoint={options.checkpoint}: its data file has changed; it has other characters now."
            )
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    for name, value in evaluate(model, len(vocabulary), data.evaluation_dataloader(options.split)).items():
        print(f"{options.split}/{name} {value:.6f}")


if __name__ == "__main__":
    main()
