"""Character-level language models, and the block they are made of.

A model maps int64 ids ``(N, context)`` to logits ``(N, vocab_size)`` of the character after each window; or, if its
class has ``sequence = True``, padded words ``(N, T)`` to logits ``(N, T, vocab_size)`` of the character after each
position. The data follow it. It is built with ``vocab_size``, ``context`` and ``normalization``, and what its
configuration says.
"""

from bnlm.models.activation import activation
from bnlm.models.bigram import Bigram, bigram_table
from bnlm.models.block import Block
from bnlm.models.bow import BagOfWords
from bnlm.models.cells import GRUCell, LSTMCell, RNNCell
from bnlm.models.mlp import MLP
from bnlm.models.recurrent import Recurrent
from bnlm.models.replicas import Replicas, first_of, networks_of
from bnlm.models.transformer import Transformer
from bnlm.models.wavenet import WaveNet

__all__ = [
    "MLP",
    "BagOfWords",
    "Bigram",
    "Block",
    "GRUCell",
    "LSTMCell",
    "RNNCell",
    "Recurrent",
    "Replicas",
    "Transformer",
    "WaveNet",
    "activation",
    "bigram_table",
    "first_of",
    "networks_of",
]
