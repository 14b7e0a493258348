"""A hundred kills of `mixtura select`: is what was bought always in the ledger?

    python benchmarks/ledger.py [--kills 100]

Every selection is killed twice at random moments (SIGKILL), taken up, and ended; then the ledger is held against the books that
its arms keep of what they made (tests/test_session.py has the check and says what is promised). Two seconds a kill. """

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from test_session import kill_and_check  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    kills = parser.parse_args().kills
    landed = 0
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range((kills + 1) // 2):
            landed += kill_and_check(Path(scratch) / str(seed), seed)
    print(f"{landed} kills of {kills} tries landed before the end; the ledger's promise held after each")


if __name__ == "__main__":
    main()
