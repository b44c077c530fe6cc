"""`python -m callboard.cli`: the command line without an installed script."""

from callboard.cli import main

main(prog_name="callboard")
