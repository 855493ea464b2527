"""python -m bnlm.sample checkpoint=PATH: spell new words."""

import math
import sys
from dataclasses import dataclass, field

import torch
from torch import nn

from bnlm.checkpoint import load_model
from bnlm.command_line import parse, usage
from bnlm.config import ConfigError
from bnlm.data import Vocabulary

#: A model that never ends a word would spell for ever.
MAX_LENGTH = 200


@dataclass
class Options:
    checkpoint: str = field(metadata={"help": "path of a .ckpt file"})
    n: int = field(default=20, metadata={"help": "number of words"})
    temperature: float = field(default=1.0, metadata={"help": "below 1: likelier words, 0: the likeliest characters"})
    top_k: int | None = field(default=None, metadata={"help": "choose among the k likeliest characters only"})
    seed: int = field(default=0, metadata={"help": "of the draws; the same seed gives the same words"})
    prefix: str = field(default="", metadata={"help": "what every word begins with"})


@torch.inference_mode()
def sample(
    model: nn.Module,
    vocabulary: Vocabulary,
    context: int,
    n: int = 20,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int = 0,
    prefix: str = "",
) -> list[str]:
    """Return `n` words, each spelled character by character until its end mark (or `MAX_LENGTH` characters).

    Args:
        model: Maps contexts `(N, context)` to logits `(N, vocab_size)`; used in evaluation mode.
        temperature: The logits are divided by it; 0 takes the likeliest character each time.
        top_k: Only the k likeliest characters are drawn from; None for all.
        seed: Of the draws.
        prefix: Beginning of every word.
    Raises:
        ValueError: If a value is out of its range, `prefix` has characters that the model does not know, or the
            model's outputs are not finite.
    """
    if n < 0:
        raise ValueError(f"n={n}: expected a whole number of at least 0.")
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ValueError(f"temperature={temperature}: expected a number of at least 0.")
    if top_k is not None and not 1 <= top_k <= len(vocabulary):
        raise ValueError(f"top_k={top_k}: expected a whole number from 1 to {len(vocabulary)}, or null.")
    try:
        known = vocabulary.encode(prefix)
    except ValueError as error:
        raise ValueError(f"prefix={prefix!r}: {error}") from error
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    ids = torch.tensor([0] * context + known, dtype=torch.int64).repeat(n, 1)
    ended = torch.zeros(n, dtype=torch.bool)
    was_training = model.training
    model.eval()
    while not bool(ended.all()) and ids.shape[1] - context < MAX_LENGTH:
        logits = model(ids[:, -context:].to(device)).float().cpu()
        if not bool(logits.isfinite().all()):
            raise ValueError("the model's outputs are not finite: its training has diverged.")
        if temperature == 0:
            following = logits.argmax(dim=1)
        else:
            logits = logits / temperature
            if top_k is not None:
                smallest = logits.topk(top_k).values[:, -1:]
                logits = logits.masked_fill(logits < smallest, -torch.inf)
            following = torch.multinomial(logits.softmax(dim=1), 1, generator=generator).squeeze(1)
        following[ended] = 0
        ended |= following == 0
        ids = torch.cat([ids, following.unsqueeze(1)], dim=1)
    model.train(was_training)
    return [vocabulary.decode([i for i in row if i]) for row in ids[:, context:].tolist()]


def main() -> None:
    """Run the command line."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(usage(Options, "bnlm.sample", "Spells new words with a trained model."))
        return
    try:
        options = parse(Options, sys.argv[1:])
        model, vocabulary, config = load_model(options.checkpoint)
        words = sample(
            model,
            vocabulary,
            config["data"]["context"],
            options.n,
            options.temperature,
            options.top_k,
            options.seed,
            options.prefix,
        )
    except (ConfigError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    for word in words:
        print(word)


if __name__ == "__main__":
    main()
