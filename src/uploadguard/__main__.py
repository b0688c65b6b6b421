"""``python -m uploadguard``."""

from uploadguard.cli import main

main()
