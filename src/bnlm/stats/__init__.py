"""Pure functions on tensors: the statistics behind the monitors and the doctor."""

from bnlm.stats.dead_units import RELU_LIKE, all_over, can_die, channel_dim_of, responding_units
from bnlm.stats.histogram import BINS, bin_edges, histogram
from bnlm.stats.moments import (
    accumulation_dtype,
    mean_of,
    moment_sums,
    moment_sums_of,
    moment_sums_of_flat,
    pooled_by_owner,
    square_sum_of,
    std_of,
)
from bnlm.stats.ratios import difference, gradient_to_data, update_to_data
from bnlm.stats.running_statistics import running_statistics_gap
from bnlm.stats.sampling import MAX_ELEMENTS, bounded
from bnlm.stats.saturation import BOUNDED, CLAMPS, flat, limits_from_call

__all__ = [
    "BINS",
    "BOUNDED",
    "CLAMPS",
    "MAX_ELEMENTS",
    "RELU_LIKE",
    "accumulation_dtype",
    "all_over",
    "bin_edges",
    "bounded",
    "can_die",
    "channel_dim_of",
    "difference",
    "flat",
    "gradient_to_data",
    "histogram",
    "limits_from_call",
    "mean_of",
    "moment_sums",
    "moment_sums_of",
    "moment_sums_of_flat",
    "pooled_by_owner",
    "responding_units",
    "running_statistics_gap",
    "square_sum_of",
    "std_of",
    "update_to_data",
]
