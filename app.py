"""Show an image or a scan in the browser: its score and p-value, its map, and a threshold to move.

    python app.py
    python app.py ckpt/few-shot/Brain-4shot.detector --port 8000

Detectors are files of calibrate.py; without any, those of ckpt and of the demo are offered. The
page is served to this machine only and asks nothing of any other; uploaded files are removed.
Research software, not a medical device.
"""

from mvfa.process import guard_imports, status_of

if __name__ == "__main__":
    guard_imports()  # a script that is stopped or has too little memory ends with one line

import sys
from collections.abc import Sequence
from time import sleep

from mvfa.cli import command
from prediction.app_options import start

if __name__ == "__main__":
    command(start)  # help and mistakes come before the imports below, which take seconds

from dataset.extras import need
from prediction.app_server import running
from prediction.reading import quiet_readers


def main(argv: Sequence[str] | None = None) -> None:
    """Serve the page until Ctrl-C or another signal, then exit with its status."""
    options = start(argv)
    for reason in options.left_out:
        print(f"note: {reason}", file=sys.stderr)
    if not options.local:
        warning = "can use the page, without password or encryption"
        print(f"note: whoever reaches {options.host} {warning}", file=sys.stderr)
    need("gradio", "app")
    quiet_readers()
    try:
        with running(options) as address:
            print(f"{address} (Ctrl-C ends it)", flush=True)
            while True:
                sleep(60)
    except KeyboardInterrupt as stop:
        print("\nstopped; uploaded files are removed", file=sys.stderr)
        sys.exit(status_of(stop))


if __name__ == "__main__":
    command(main)
