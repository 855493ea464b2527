"""Word lists and texts, their vocabulary and windows, and the minibatches of a run."""

from bnlm.data.character_datamodule import CharacterDataModule
from bnlm.data.datamodule import WordsDataModule
from bnlm.data.makemore import makemore_path
from bnlm.data.minibatches import EvaluationBatches, Minibatches, minibatch_indices
from bnlm.data.sequences import IGNORED, sequences
from bnlm.data.text import read_text
from bnlm.data.text_datamodule import TextDataModule
from bnlm.data.vocabulary import END, Vocabulary
from bnlm.data.windows import windows
from bnlm.data.words import composed, read_words, split_words

__all__ = [
    "END",
    "IGNORED",
    "CharacterDataModule",
    "EvaluationBatches",
    "Minibatches",
    "TextDataModule",
    "Vocabulary",
    "WordsDataModule",
    "composed",
    "makemore_path",
    "minibatch_indices",
    "read_text",
    "read_words",
    "sequences",
    "split_words",
    "windows",
]
