"""The command line: options to configuration, one call, one result. The only part that knows everyone."""

from maag.cli.main import main

__all__ = ["main"]
