"""Layers that can stand between a Linear and its activation."""

from bnlm.normalization.batch_norm import BatchNorm
from bnlm.normalization.layer_norm import LayerNorm
from bnlm.normalization.redundant_bias import makes_bias_redundant

__all__ = ["BatchNorm", "LayerNorm", "makes_bias_redundant"]
