"""bnlm: initialisation, normalization and training diagnostics for PyTorch Lightning."""

__version__ = "0.1.0"
