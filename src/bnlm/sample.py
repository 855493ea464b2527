"""python -m bnlm.sample checkpoint=PATH: spell new words."""

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from bnlm.checkpoint import build_data, data_class, load_model
from bnlm.command_line import parse, usage
from bnlm.config import ConfigError
from bnlm.data import END, Vocabulary, WordsDataModule, composed

#: A model that never ends a word would spell for ever.
MAX_LENGTH = 200
#: Rows that the model is given at once; of no influence on the words, as no row sees another in evaluation mode.
ROWS = 2048

Origin = Literal["train", "val/test", "new"]


@dataclass
class Options:
    checkpoint: str = field(metadata={"help": "path of a .ckpt file"})
    n: int = field(default=20, metadata={"help": "number of words"})
    temperature: float = field(default=1.0, metadata={"help": "below 1: likelier words, 0: the likeliest characters"})
    top_k: int | None = field(default=None, metadata={"help": "choose among the k likeliest characters only"})
    seed: int = field(default=0, metadata={"help": "of the draws; the same seed gives the same words"})
    prefix: str = field(default="", metadata={"help": "what every word begins with"})
    json: bool = field(default=False, metadata={"help": "also as --json: a JSON list instead of lines"})


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
    start: int = END,
) -> list[str]:
    """Return `n` words, each spelled character by character until its end mark (or `MAX_LENGTH` characters).

    Args:
        model: Maps contexts `(N, context)` to logits `(N, vocab_size)`, or, if its class has `sequence = True`, ids
            `(N, T)`, T up to `context`, to `(N, T, vocab_size)`; used in evaluation mode.
        context: Characters that the model sees.
        temperature: The logits are divided by it; 0 takes the likeliest character each time.
        top_k: Only the k likeliest characters are drawn from; None for all.
        seed: Of the draws.
        prefix: Beginning of every word.
        start: The id before the first character.
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
        known = vocabulary.encode(composed(prefix))
    except ValueError as error:
        raise ValueError(f"prefix={prefix!r}: {error}") from error
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    before = 1 if getattr(model, "sequence", False) else context  # ids in front of a word
    end = before + max(MAX_LENGTH, len(known))
    ids = torch.full((n, end), END)
    ids[:, :before] = start
    ids[:, before : before + len(known)] = torch.tensor(known, dtype=torch.int64)
    spelling = torch.arange(n)  # the words that have not ended
    was_training = model.training
    model.eval()
    try:
        for place in range(before + len(known), end):
            if not len(spelling):
                break
            seen = ids[spelling, max(place - context, 0) : place]
            following = _draw(_next_logits(model, seen, device), temperature, top_k, generator)
            ids[spelling, place] = following
            spelling = spelling[following != END]
    finally:
        model.train(was_training)
    return [vocabulary.decode(row[: row.index(END)] if END in row else row) for row in ids[:, before:].tolist()]


def _next_logits(model: nn.Module, seen: Tensor, device: torch.device) -> Tensor:
    """Return the logits `(N, vocab_size)` of the character after each row of `seen`, on the CPU."""
    logits = torch.cat([model(rows.to(device)) for rows in seen.split(ROWS)]).float().cpu()
    if logits.dim() == 3:
        logits = logits[:, -1]
    if not bool(logits.isfinite().all()):
        raise ValueError("the model's outputs are not finite: its training has diverged.")
    return logits


def _draw(logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator) -> Tensor:
    if temperature == 0:
        return logits.argmax(dim=1)
    logits = logits / temperature
    if top_k is not None:
        smallest = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < smallest, -torch.inf)
    return torch.multinomial(logits.softmax(dim=1), 1, generator=generator).squeeze(1)


def origins(words: Iterable[str], splits: Mapping[str, Sequence[str]]) -> list[Origin]:
    """Return for each word whether it is one of the training words, else one of the others, or new.

    Args:
        splits: The words of each split, of which `train` is one, as `WordsDataModule.words` has them.
    """
    train = set(splits["train"])
    others = {word for split, own in splits.items() if split != "train" for word in own}
    return ["train" if word in train else "val/test" if word in others else "new" for word in words]


def lines(words: Sequence[str], found: Sequence[Origin | None]) -> str:
    """Return one line a word, with where it comes from after a tab, if that is known."""
    pairs = zip(words, found, strict=True)
    return "".join(f"{word}\n" if origin is None else f"{word}\t{origin}\n" for word, origin in pairs)


def main() -> None:
    """Run the command line."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(usage(Options, "bnlm.sample", "Spells new words with a trained model, and says which are not new."))
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
            data_class(config, options.checkpoint).start_id(vocabulary),
        )
    except (ConfigError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    found: list[Origin | None] = [None] * len(words)
    if data_class(config, options.checkpoint).has_words:
        try:
            data = build_data(config, options.checkpoint)
        except ConfigError as error:
            print(f"Which words are new cannot be told: {error}", file=sys.stderr)
        else:
            assert isinstance(data, WordsDataModule)
            found = list(origins(words, data.words))
    if options.json:
        entries = [{"word": word, "origin": origin} for word, origin in zip(words, found, strict=True)]
        print(json.dumps(entries, ensure_ascii=False, indent=1))
    else:
        print(lines(words, found), end="")


if __name__ == "__main__":
    main()
