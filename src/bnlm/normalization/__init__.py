"""Layers that can stand between a Linear and its activation."""

from bnlm.normalization.batch_norm import BatchNorm
from bnlm.normalization.batch_norm_formula import batch_norm_formula
from bnlm.normalization.batch_renorm import BatchRenorm
from bnlm.normalization.calibrate import calibrate
from bnlm.normalization.convert import convert
from bnlm.normalization.dynamic_tanh import DynamicTanh
from bnlm.normalization.fold import fold
from bnlm.normalization.ghost_batch_norm import GhostBatchNorm
from bnlm.normalization.group_norm import GroupNorm
from bnlm.normalization.layer_norm import LayerNorm
from bnlm.normalization.redundant_bias import makes_bias_redundant
from bnlm.normalization.rms_norm import RMSNorm
from bnlm.normalization.torch_sync import honour_convert_sync_batchnorm

__all__ = [
    "BatchNorm",
    "BatchRenorm",
    "DynamicTanh",
    "GhostBatchNorm",
    "GroupNorm",
    "LayerNorm",
    "RMSNorm",
    "batch_norm_formula",
    "calibrate",
    "convert",
    "fold",
    "makes_bias_redundant",
]

honour_convert_sync_batchnorm()
