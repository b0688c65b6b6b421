"""The command line, ``uploadguard``: one module for each command, which imports what it needs when it runs, so that
``--help`` is quick. What a command does beyond reading options and printing lives in the library.
"""

from uploadguard.cli.program import main, program

__all__ = ["main", "program"]
