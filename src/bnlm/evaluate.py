"""python -m bnlm.evaluate checkpoint=PATH [split=val | words=[...]]: how well a trained model predicts."""

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bnlm.checkpoint import build_data, data_class, load_model
from bnlm.command_line import parse, usage
from bnlm.config import ConfigError
from bnlm.metrics import SplitMetrics
from bnlm.score import WordScore, score

SPLITS = ("train", "val", "test")


@dataclass
class Options:
    checkpoint: str = field(metadata={"help": "path of a .ckpt file"})
    split: str = field(default="val", metadata={"help": "train, val or test"})
    words: list[str] | None = field(
        default=None, metadata={"help": "instead of a split, such as words=[ada,grace]: how likely each of them is"}
    )
    json: bool = field(default=False, metadata={"help": "also as --json: JSON instead of lines"})


@torch.inference_mode()
def evaluate(model: nn.Module, vocab_size: int, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Return loss (nats per character), perplexity, bits_per_char and accuracy of `model` in evaluation mode.

    Args:
        model: Maps contexts `(N, context)` to logits `(N, vocab_size)`, or padded words `(N, T)` to
            `(N, T, vocab_size)`.
        batches: Contexts `(N, context)` and targets `(N,)`, or words and targets `(N, T)`; together the whole split
            (this rank's share of it).
    """
    was_training = model.training
    model.eval()
    metrics = SplitMetrics(vocab_size).to(next(model.parameters()).device)
    for contexts, targets in batches:
        metrics.update(model(contexts), targets)
    model.train(was_training)
    return metrics.compute()


def _score_lines(scores: list[WordScore]) -> str:
    """Return a line a word: its log-probability, its loss, and the log-probability of each character."""
    width = max(len(found.word) for found in scores)
    lines = [f"{'word':{width}}  log-prob  nats/char  log-probability of each character"]
    for found in scores:
        pairs = zip(found.characters, found.log_probabilities, strict=True)
        each = "  ".join(f"{character} {value:.2f}" for character, value in pairs)
        lines.append(f"{found.word:{width}}  {found.total:8.3f}  {found.loss:9.4f}  {each}")
    return "\n".join(lines)


def main() -> None:
    """Run the command line."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(usage(Options, "bnlm.evaluate", "Prints how well a trained model predicts a split, or given words."))
        return
    try:
        options = parse(Options, sys.argv[1:])
        if options.split not in SPLITS:
            raise ConfigError(f"split={options.split}: expected one of {', '.join(SPLITS)}.")
        model, vocabulary, config = load_model(options.checkpoint)
        if options.words is not None:
            kind = data_class(config, options.checkpoint)
            scores = score(
                model,
                vocabulary,
                config["data"]["context"],
                options.words,
                kind.start_id(vocabulary),
                kind.has_words,
            )
        else:
            data = build_data(config, options.checkpoint)
            if data.vocabulary != vocabulary:
                raise ConfigError(
                    f"checkpoint={options.checkpoint}: its data file has changed; it has other characters now."
                )
    except (ConfigError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    if options.words is not None:
        if options.json:
            print(json.dumps([_as_dict(found) for found in scores], ensure_ascii=False, indent=1))
        else:
            print(_score_lines(scores))
        return
    results = evaluate(model, len(vocabulary), data.evaluation_dataloader(options.split))
    results = {f"{options.split}/{name}": value for name, value in results.items()}
    if options.json:
        print(json.dumps(results, indent=1))
    else:
        for name, value in results.items():
            print(f"{name} {value:.6f}")


def _as_dict(found: WordScore) -> dict[str, object]:
    pairs = zip(found.characters, found.log_probabilities, strict=True)
    return {
        "word": found.word,
        "log_probability": found.total,
        "loss": found.loss,
        "characters": [{"character": character, "log_probability": value} for character, value in pairs],
    }


if __name__ == "__main__":
    main()
