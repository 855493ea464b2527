"""Initialisation schemes, and how they are applied to a built model."""

from bnlm.init.fans import fans
from bnlm.init.gain import computed_gain, gain_of
from bnlm.init.initialize import LayerReport, Scheme, initialize
from bnlm.init.kaiming import kaiming_normal, kaiming_uniform
from bnlm.init.normal import normal
from bnlm.init.scaled import scaled
from bnlm.init.table import report_table
from bnlm.init.torch_default import torch_default_std
from bnlm.init.xavier import xavier_normal, xavier_uniform

__all__ = [
    "LayerReport",
    "Scheme",
    "computed_gain",
    "fans",
    "gain_of",
    "initialize",
    "kaiming_normal",
    "kaiming_uniform",
    "normal",
    "report_table",
    "scaled",
    "torch_default_std",
    "xavier_normal",
    "xavier_uniform",
]
