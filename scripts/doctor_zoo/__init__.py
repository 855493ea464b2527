"""A labelled zoo of training runs: networks that train well, and networks with one known sickness each."""

from doctor_zoo.case import Case, Run
from doctor_zoo.healthy import healthy_cases
from doctor_zoo.second import second_cases
from doctor_zoo.sick import sick_cases

__all__ = ["Case", "Run", "all_cases", "healthy_cases", "second_cases", "sick_cases"]


def all_cases() -> list[Case]:
    """Return every case of the zoo; names are unique."""
    return healthy_cases() + sick_cases() + second_cases()
