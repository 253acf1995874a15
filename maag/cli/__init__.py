"""The command line: options become a configuration, one call, one result. The only package that imports all others."""

from maag.cli.main import main

__all__ = ["main"]
