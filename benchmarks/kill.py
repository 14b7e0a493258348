"""Kill -9 a run, or one of its workers, at 20 random moments and go on each time: are the bits those of an undisturbed run?

python benchmarks/kill.py [--kills 20]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    kills = parser.parse_args().kills
    tests = Path(__file__).resolve().parents[1] / "tests" / "job" / "test_kill.py"
    command = [sys.executable, "-m", "pytest", "-q", str(tests), "-k", "killed"]
    done = subprocess.run(command, env=os.environ | {"MIXTURA_KILLS": str(kills)}, check=False)
    print(f"{kills} kills: {'the same bits as undisturbed' if done.returncode == 0 else 'DIFFERENT BITS'}")
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
