"""Score one's own images and scans: a score, a p-value and a map for each, with a detector.

    python predict.py -i scan.png -o out --obj Brain --shot 4
    python predict.py -i ct_series flair.nii.gz -o out --detector ckpt/few-shot/Brain-4shot.detector

The detector is a file of calibrate.py. -i takes images, DICOM files and series, NIfTI volumes, and
folders of them. A score depends on its image alone. A run that was stopped goes on where it was
when the same command is given again. Research software, not a medical device.
"""

from mvfa.process import after_imports, before_imports, end, guard_imports

if __name__ == "__main__":
    guard_imports()  # a script that is stopped or has too little memory ends with one line
    before_imports()

import sys
from collections.abc import Sequence
from contextlib import suppress

from errors import UserError
from mvfa.cli import command
from prediction.start import log_name, settings, start

if __name__ == "__main__":
    command(start)  # help and mistakes come before the imports below, which take seconds

from mvfa.locks import exclusive, hold_folder
from prediction.discovery import find
from prediction.finish import finish
from prediction.loading import load_detector
from prediction.page import Summary
from prediction.reading import quiet_readers
from prediction.records import begin, clear, drop_changed, finished, write_table
from prediction.run import Run
from prediction.run_folder import FILES
from utils import writable


@exclusive
def main(argv: Sequence[str] | None = None) -> Summary:
    """Score what was not scored before; write and return the summary of all."""
    options, about = start(argv)
    quiet_readers()
    writable(options.out, "-o", FILES)
    hold_folder(options.out, "-o")

    # what there is to score, less what an earlier run has scored
    found = find(options.input, options.out, series=options.series)
    others = found.describe_others()
    if not found.sources:
        raise UserError(f"-i: nothing to score; {others or 'the folders are empty'}")
    detector = load_detector(options, found.sources)
    if options.overwrite:
        clear(options.out)
    if begin(options.out, settings(options, about)):
        changed = drop_changed(options.out, ((s.name, s.evidence) for s in found.sources))
        done = finished(options.out)
        found.sources = [s for s in found.sources if s.name not in done]
        again = f"; {changed} are other files now and scored again" if changed else ""
        print(f"note: going on, {len(done)} were scored before{again}", file=sys.stderr)

    # score them here, or in jobs
    try:
        if options.cluster or options.jobs > 1:
            from prediction.shards import submit

            submit(options, len(found.sources))
        else:
            Run(detector, options, options.out / log_name())(found.sources)
    except (KeyboardInterrupt, UserError, OSError, MemoryError, RuntimeError):
        with suppress(OSError):  # on a full disk, too, what is there so far
            write_table(options.out)
        print("note: the same command goes on with what is missing", file=sys.stderr)
        raise
    assert detector.rule is not None
    return finish(detector, options, detector.rule.sentences, others)


def run() -> None:
    """Run `main` and end the process, with status 1 if a file could not be scored."""
    after_imports()
    end(1 if main().failures else 0)


if __name__ == "__main__":
    command(run)
