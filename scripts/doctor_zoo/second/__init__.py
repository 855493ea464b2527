"""A second set of runs: other data, networks and mistakes, written before the rules' code was looked at."""

from doctor_zoo.case import Case
from doctor_zoo.second.healthy_edges import healthy_edges
from doctor_zoo.second.healthy_fields import healthy_fields
from doctor_zoo.second.healthy_plain import healthy_plain
from doctor_zoo.second.healthy_plateaus import healthy_plateaus
from doctor_zoo.second.healthy_tables import healthy_tables
from doctor_zoo.second.sick_depth import sick_depth
from doctor_zoo.second.sick_graphs import sick_graphs
from doctor_zoo.second.sick_outputs import sick_outputs
from doctor_zoo.second.sick_rates import sick_rates
from doctor_zoo.second.sick_standstills import sick_standstills
from doctor_zoo.second.sick_statistics import sick_statistics

__all__ = ["second_cases"]


def second_cases() -> list[Case]:
    """Return all runs, healthy ones first."""
    healthy = healthy_tables() + healthy_fields() + healthy_edges() + healthy_plain() + healthy_plateaus()
    sick = sick_outputs() + sick_depth() + sick_rates() + sick_graphs() + sick_statistics() + sick_standstills()
    return healthy + sick
