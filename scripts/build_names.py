"""Make the shipped list of names from the Social Security Administration's file of one year (`yob2018.txt`).

Usage: python scripts/build_names.py SOURCE [--output src/bnlm/data/names.txt]
"""

import argparse
import hashlib
from collections.abc import Iterable
from pathlib import Path

OUTPUT = Path(__file__).resolve().parents[1] / "src" / "bnlm" / "data" / "names.txt"


def names_from_ssa(lines: Iterable[str]) -> list[str]:
    """Return the lower-cased names of `Name,Sex,Count` lines, in file order.

    A name given to both sexes has two lines and stays in twice, as in the lecture's list: its weight in training.

    Raises:
        ValueError: If a line is not of that form; the message has its number.
    """
    names = []
    for number, line in enumerate(lines, start=1):
        name, *rest = line.strip().split(",")
        if not name or len(rest) != 2 or rest[0] not in ("F", "M") or not rest[1].isdigit():
            raise ValueError(f"line {number} is {line.strip()!r}: expected Name,Sex,Count such as Emma,F,18770.")
        names.append(name.lower())
    return names


def main() -> None:
    """Write the list and print what NAMES.md states about it."""
    parser = argparse.ArgumentParser(description="Make the shipped list of names.")
    parser.add_argument("source", type=Path, help="the SSA's file of one year: lines of Name,Sex,Count")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the list to write, one name a line")
    arguments = parser.parse_args()
    names = names_from_ssa(arguments.source.read_text(encoding="utf-8").rstrip("\n").split("\n"))
    content = ("\n".join(names) + "\n").encode()
    arguments.output.write_bytes(content)
    print(f"{arguments.output}: {len(names):,} words, sha256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
