"""Word lists, their vocabulary and windows, and the minibatches of a run."""

from bnlm.data.datamodule import WordsDataModule
from bnlm.data.makemore import makemore_path
from bnlm.data.minibatches import EvaluationBatches, Minibatches, minibatch_indices
from bnlm.data.vocabulary import Vocabulary
from bnlm.data.windows import windows
from bnlm.data.words import read_words, split_words

__all__ = [
    "EvaluationBatches",
    "Minibatches",
    "Vocabulary",
    "WordsDataModule",
    "makemore_path",
    "minibatch_indices",
    "read_words",
    "split_words",
    "windows",
]
