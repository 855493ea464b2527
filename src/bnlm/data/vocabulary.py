"""The characters a model knows, and their ids."""

from collections.abc import Iterable
from dataclasses import dataclass, field

END = 0  # id of the end mark; also fills the context before a word's first character


@dataclass(frozen=True)
class Vocabulary:
    """Characters with the ids 1, 2, ... in the order given; id 0 is the end mark, which is shown as `.`.

    A `.` inside a word is a character like any other, with an id of its own.

    Raises:
        ValueError: If a character occurs twice.
    """

    characters: str
    _ids: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ids = {character: i for i, character in enumerate(self.characters, start=1)}
        if len(ids) != len(self.characters):
            twice = sorted({c for c in ids if self.characters.count(c) > 1})
            raise ValueError(f"characters={self.characters!r}: {_listed(twice)} occurs more than once.")
        object.__setattr__(self, "_ids", ids)  # the way of a frozen dataclass to set what is derived

    @classmethod
    def from_words(cls, words: Iterable[str]) -> "Vocabulary":
        """Return the vocabulary of all characters in `words`, sorted by code point."""
        return cls("".join(sorted(set("".join(words)))))

    def __len__(self) -> int:
        """Return the number of ids: the characters and the end mark."""
        return len(self.characters) + 1

    def encode(self, text: str) -> list[int]:
        """Return the id of each character of `text`, without an end mark.

        Raises:
            ValueError: If a character is unknown; the message names the unknown and the known ones.
        """
        try:
            return [self._ids[character] for character in text]
        except KeyError:
            unknown = sorted(set(text) - set(self.characters))
            raise ValueError(f"unknown characters {_listed(unknown)}; known are {self.characters!r}.") from None

    def decode(self, ids: Iterable[int]) -> str:
        """Return the characters that `ids` (any iterable of numbers, also a tensor) stand for; end marks are left out.

        Raises:
            ValueError: If an id is not in the vocabulary.
        """
        whole = [int(i) for i in ids]
        for i in whole:
            if not 0 <= i < len(self):
                raise ValueError(f"id {i} is not in the vocabulary; expected 0 to {len(self) - 1}.")
        return "".join(self.characters[i - 1] for i in whole if i != END)


def _listed(characters: Iterable[str]) -> str:
    return ", ".join(repr(character) for character in characters)
