"""Numbers on the command line, with names that a person understands in an error."""

import click


class Whole(click.IntRange):
    """A whole number within a range."""

    name = "whole number"


class Seconds(click.FloatRange):
    """A number of seconds within a range."""

    name = "number of seconds"
