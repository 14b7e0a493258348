# blob.py
import json
import random
import sys

centre = float(sys.argv[1])
print("ready", file=sys.stderr)  # logs go to standard error
for line in sys.stdin:
    rng = random.Random(json.loads(line)["seed"])
    print(json.dumps({"sample": [rng.gauss(centre, 3), rng.gauss(0, 1)]}), flush=True)
