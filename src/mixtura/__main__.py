"""``python -m mixtura``."""

from mixtura.cli.main import main

if __name__ == "__main__":
    main()
