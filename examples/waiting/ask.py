"""Ask for many forecasts at once: ``python ask.py 300``."""

import os
import sys
import time

from callboard import Client


def main(towns: int) -> None:
    """Start one run for each town, then wait for all of them."""
    started = time.monotonic()
    with Client(os.environ["CALLBOARD_URL"], os.environ["CALLBOARD_TOKEN"]) as client:
        runs = [client.submit("forecast", {"name": f"town-{n}"}) for n in range(towns)]
        results = [client.wait(run_id) for run_id in runs]
    kept = sum(result.success for result in results)
    print(f"{kept} of {towns} forecasts in {time.monotonic() - started:.1f} s")
    sys.exit(kept < towns)


if __name__ == "__main__":
    main(int(sys.argv[1]))
