"""What no input may do: `python -m benchmarks.fuzz --url http://127.0.0.1:8000 --examples 5000`, or
`python -m benchmarks.fuzz --readers --minutes 10`.

The first sends requests made from the API's schema (benchmarks/fuzz_api.py) to a server that is running: one on a copy
of a home, since lists are made and removed. The second gives damaged files to everything that reads files
(benchmarks/fuzz_files.py). The status is 1 where anything failed.
"""

import argparse
import json
import sys

from benchmarks import fuzz_files


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--examples", type=int, default=5000)
    parser.add_argument("--token", default="", help="an API token, for a server in team mode")
    parser.add_argument("--readers", action="store_true", help="files, not requests")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="only operations whose path, or readers whose name, holds this")
    given = parser.parse_args()
    if given.readers:
        found = fuzz_files.fuzz(60 * given.minutes, given.seed, only=given.only)
        faults = found.faults
        print(json.dumps({"read": found.read.total(), "refused": found.refused.total(), "faults": len(faults)}))
    else:
        from benchmarks.fuzz_api import fuzz

        told = fuzz(
            given.url, given.examples, given.seed, only=given.only, seconds=60 * given.minutes, token=given.token
        )
        faults = told.faults
        print(json.dumps({"statuses": dict(sorted(told.statuses.items())), "faults": len(faults)}))
    for fault in faults:
        print(fault[:2000], file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
