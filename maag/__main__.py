"""`python -m maag`."""

from maag.cli import main

main()
