"""Initialisation schemes, and how they are applied to a built model."""

from bnlm.init.depth import preview_depth
from bnlm.init.fans import fans
from bnlm.init.gain import computed_gain, gain_of
from bnlm.init.initialize import initialize
from bnlm.init.kaiming import kaiming_normal, kaiming_uniform
from bnlm.init.lsuv import lsuv, unit_variance
from bnlm.init.normal import normal
from bnlm.init.orthogonal import orthogonal
from bnlm.init.preview import Preview, preview
from bnlm.init.report import LayerReport
from bnlm.init.scaled import scaled
from bnlm.init.schemes import Scheme
from bnlm.init.table import report_table
from bnlm.init.torch_default import torch_default_std
from bnlm.init.weights import weights_of
from bnlm.init.xavier import xavier_normal, xavier_uniform

__all__ = [
    "LayerReport",
    "Preview",
    "Scheme",
    "computed_gain",
    "fans",
    "gain_of",
    "initialize",
    "kaiming_normal",
    "kaiming_uniform",
    "lsuv",
    "normal",
    "orthogonal",
    "preview",
    "preview_depth",
    "report_table",
    "scaled",
    "torch_default_std",
    "unit_variance",
    "weights_of",
    "xavier_normal",
    "xavier_uniform",
]
