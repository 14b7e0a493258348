"""``python -m mixtura``."""

from mixtura.cli import main

main()
