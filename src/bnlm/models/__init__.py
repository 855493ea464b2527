"""Character-level language models, and the block they are made of."""

from bnlm.models.activation import activation
from bnlm.models.block import Block
from bnlm.models.mlp import MLP

__all__ = ["MLP", "Block", "activation"]
