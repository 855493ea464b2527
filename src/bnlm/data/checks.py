"""The one check that most keys of `data` share."""


def check_whole_number(key: str, value: object, at_least: int) -> int:
    """Return `value` if it is an int of at least `at_least`; a bool is not a number here.

    Raises:
        ValueError: Otherwise; the message begins with `key=value`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise ValueError(f"{key}={value!r}: expected a whole number of at least {at_least}.")
    return value
