"""Prepare data: download files, check them, convert them to the layout, draw shots.

    python prepare_data.py COMMAND --help
    python prepare_data.py download clip Brain shots
    python prepare_data.py check --obj Brain
    python prepare_data.py convert thyroid.csv --obj Thyroid --noun "thyroid ultrasound"
    python prepare_data.py draw --obj Brain --draws 3 --overwrite

`download` fetches weights, images, adapters and shot lists to where the scripts look for them,
continues where it was broken off, and records the SHA-256 of each file.

`check` decodes all images and masks of objects, and reports errors (exit status 1), warnings and
notes. `convert` brings a CSV, MVTec's layout, BMAD's own, HAM10000 or ISIC 2019 to the layout.

`draw` writes shot lists: seeded draws of K normal and K abnormal `valid` images, in the format of
the published lists, which `train_few.py --iterate` and `test_few.py --iterate` read. Slices of one
patient look alike, so a draw takes as many patients as possible, if file names tell them apart.

Each command is an entry of COMMANDS: its flags, and what it does.
"""

from mvfa.process import guard_imports

if __name__ == "__main__":
    guard_imports()  # a script that is stopped or has too little memory ends with one line

import argparse
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from CLIP.weight_files import WEIGHTS, WEIGHTS_SHOWN, known_model
from dataset.catalog import object_name, object_noun
from dataset.layout import object_folder
from dataset.patterns import case_pattern
from errors import UserError
from mvfa.cli import command
from mvfa.defaults import CHECKPOINTS, DEFAULT_MODEL, DEFAULT_SEED, FEW, SHOT_LISTS
from mvfa.flags import SEED, Flags, Parser, number
from preparation.assets import APART, EVERYTHING, Places, assets
from preparation.convert_sources import AUTO, LAYOUTS

SHOTS = (2, 4, 8, 16)
CLIP_FILE = known_model(DEFAULT_MODEL)["file"]
FOLDER = {"type": Path, "metavar": "DIR"}


class Command(NamedTuple):
    """One command of this script.

    Args:
        summary: what it does, a line of the help.
        add_flags: adds its flags to its parser.
        run: does it; returns the files it wrote, which are printed. It imports what is slow, raises
            UserError for a mistake of the user, and SystemExit for an exit status of its own.
        examples: of its flags.

    """

    summary: str
    add_flags: Callable[[Parser], None]
    run: Callable[[argparse.Namespace], list[Path]]
    examples: tuple[str, ...]


def add_download(parser: Parser) -> None:
    """Add the flags of `download`."""
    text = f"{EVERYTHING}: all but {', '.join(n for n, a in assets().items() if a.kind in APART)}; "
    text += f"or some of {', '.join(assets())}"
    parser.add_argument("names", nargs="+", metavar="NAME", help=text)
    flags = Flags(parser, "places")
    flags.add("data_path", "folder of the <obj>_AD folders", Path("data"), **FOLDER)
    flags.add("fewshot_path", "folder of the shot lists", SHOT_LISTS, **FOLDER)
    flags.add("ckpt_path", "folder of the authors' adapters", CHECKPOINTS[FEW].parent, **FOLDER)
    file = {"type": Path, "metavar": "FILE"}
    text = "CLIP's weight file"
    flags.add("clip_path", text, shown=f"{WEIGHTS_SHOWN}/{CLIP_FILE}", **file)
    flags = Flags(parser, "sources")
    text = "folder on a server that has the files under their published names"
    flags.add("mirror", text, "", metavar="URL", shown="the published addresses")
    text = "a file that was fetched with a browser, or a folder of such files"
    flags.add("from", text, type=Path, metavar="PATH", shown="over the network")
    flags.yes_no("keep_archives", "keep archives after unpacking", False)
    text = "take a file that differs from an earlier download of it"
    parser.add_argument("--accept_new", action="store_true", help=text)


def download(options: argparse.Namespace) -> list[Path]:
    """Download files and return what was written. Raises UserError."""
    from preparation.download import Request
    from preparation.download import download as fetch

    places = Places(
        weights=options.clip_path or WEIGHTS / CLIP_FILE,
        data=options.data_path,
        checkpoints=options.ckpt_path,
        lists=options.fewshot_path,
    )
    source = getattr(options, "from")
    if source is not None and options.mirror:
        raise UserError("--from and --mirror are two sources; leave one of them out")
    if source is not None and not source.exists():
        raise UserError(f"--from {source} does not exist; pass a file or a folder of files")
    request = Request(places, options.mirror, source, options.accept_new, options.keep_archives)
    return fetch(options.names, request)


def add_draw(parser: Parser) -> None:
    """Add the flags of `draw`."""
    parser.add_argument("--obj", required=True, type=object_name, metavar="NAME", help="the object")
    flags = Flags(parser, "draws")
    flags.add("data_path", "folder of the <obj>_AD folders", Path("data"), **FOLDER)
    flags.add(
        "fewshot_path", "folder that DIR/<obj>/<K>-shot.txt is written to", SHOT_LISTS, **FOLDER
    )
    count = number(int, 1)
    flags.add(
        "shots", "numbers K of shots, one list each", SHOTS, type=count, nargs="+", metavar="K"
    )
    flags.add("draws", "write draws 0 to N - 1, for --iterate", 5, type=count, metavar="N")
    flags.add("seed", "another seed gives other draws", DEFAULT_SEED, type=SEED)
    by_case = "auto: one image of every case (patient) before a second one of any; no: ignore cases"
    flags.add("by_case", by_case, "auto", choices=["auto", "no"])
    parser.add_argument("--overwrite", action="store_true", help="replace lists that exist")


def draw(options: argparse.Namespace) -> list[Path]:
    """Write shot lists and return their paths. Raises UserError."""
    from dataset.draws import write_lists  # imports torch

    return write_lists(
        options.data_path,
        options.obj,
        options.fewshot_path,
        options.shots,
        draws=options.draws,
        seed=options.seed,
        by_case=options.by_case == "auto",
        overwrite=options.overwrite,
    )


def add_jobs(flags: Flags) -> None:
    """Add the number of threads."""
    text = "threads that decode files"
    flags.add("jobs", text, type=number(int, 1), metavar="N", shown="one for each core")


def add_check(parser: Parser) -> None:
    """Add the flags of `check`."""
    flags = Flags(parser, "checks")
    objects = {"type": object_name, "nargs": "+", "metavar": "NAME"}
    flags.add("obj", "the objects", shown="every <obj>_AD folder there is", **objects)
    flags.add("data_path", "folder of the <obj>_AD folders", Path("data"), **FOLDER)
    flags.add("fewshot_path", "folder of the shot lists", SHOT_LISTS, **FOLDER)
    text = "also write all findings, with all file names, as JSON; -: to standard output, alone"
    flags.add("json", text, metavar="FILE", shown="not written")
    add_jobs(flags)


def check(options: argparse.Namespace) -> list[Path]:
    """Print what is found in the data of objects. Raises UserError; exits with 1 on errors."""
    from preparation.audit import check_objects, write_report  # imports torch

    report = check_objects(options.data_path, options.obj, options.fewshot_path, options.jobs)
    write_report(report, options.json)
    if report.status:
        raise SystemExit(report.status)
    return []


def case_rule(text: str) -> str:
    """Convert auto, no or a regular expression with a group `case`, a flag's value."""
    return text if text in (AUTO, "no") else case_pattern(text)


def add_convert(parser: Parser) -> None:
    """Add the flags of `convert`."""
    text = (
        "a CSV with the columns image and label (mask, case, slice, split), or a dataset's folder"
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help=text)
    text = "name of the object"
    parser.add_argument("--obj", required=True, type=object_name, metavar="NAME", help=text)
    flags = Flags(parser, "conversion")
    flags.add("data_path", "<obj>_AD is written to DIR", Path("data"), **FOLDER)
    text = "layout of SOURCE: MVTec's, that of BMAD's archives, or a known table"
    flags.add("layout", text, AUTO, choices=[AUTO, *LAYOUTS])
    text = "noun of the sentences, such as 'thyroid ultrasound'"
    flags.add("noun", text, type=object_noun, metavar="TEXT", shown="the name")
    text = "share of the images of each label for valid, if SOURCE has no valid"
    flags.add("valid", text, 0.2, type=number(float, 0, False, 0.9), metavar="SHARE")
    flags.add("seed", "another seed gives another choice of valid", DEFAULT_SEED, type=SEED)
    text = "how patients are known: auto: from SOURCE, else by names such as 00003_60; no: not at "
    text += "all; or a regular expression of file names with a group (?P<case>...)"
    flags.add("cases", text, AUTO, type=case_rule, metavar="auto|no|REGEX")
    text = "put the case before file names that do not show it, so that draws of shots see it"
    flags.yes_no("case_names", text, True)
    classes = {"nargs": "+", "metavar": "CLASS"}
    flags.add("normal", "normal classes of a table", shown="nv; a CSV has labels", **classes)
    flags.add("abnormal", "abnormal classes of a table", shown="all others", **classes)
    flags.yes_no("masks", "take masks", True)
    flags.yes_no("link", "link files instead of copying them", False)
    add_jobs(flags)
    parser.add_argument("--overwrite", action="store_true", help="replace a folder that exists")


def convert(options: argparse.Namespace) -> list[Path]:
    """Convert a dataset, print what was done, and return the folder. Raises UserError."""
    from preparation import convert as conversion  # imports torch
    from preparation.convert_plan import Request, summary

    request = Request(
        source=options.source,
        name=options.obj,
        data_path=options.data_path,
        layout=options.layout,
        valid=options.valid,
        seed=options.seed,
        link=options.link,
        noun=options.noun,
        normal=options.normal,
        abnormal=options.abnormal,
        cases=options.cases,
        case_names=options.case_names,
        masks=options.masks,
        overwrite=options.overwrite,
        jobs=options.jobs,
    )
    for line in summary(conversion.convert(request)):
        print(line)
    flags = ["check", "--obj", options.obj, "--data_path", str(options.data_path)]
    print(f"check it with: python prepare_data.py {shlex.join(flags)}")
    return [object_folder(options.data_path, options.obj)]


COMMANDS = {
    "download": Command(
        "fetch weights, images, adapters and shot lists to their places",
        add_download,
        download,
        ("clip Brain shots", "all --mirror https://files.example.org/mvfa", "Brain --from FILE"),
    ),
    "check": Command(
        "look for faults in the data of objects: counts, masks, sizes, duplicates, shot lists",
        add_check,
        check,
        ("--obj Brain Liver", "--json report.json", "--data_path demo/data --json -"),
    ),
    "convert": Command(
        "bring a dataset to the layout of this program, as an object of its own",
        add_convert,
        convert,
        (
            "thyroid.csv --obj Thyroid --noun 'thyroid ultrasound'",
            "downloads/bottle --obj Bottle --layout mvtec --link yes",
            "downloads/HAM10000 --obj Skin_HAM10000 --normal nv --abnormal mel",
        ),
    ),
    "draw": Command(
        "write seeded draws of shots as shot lists",
        add_draw,
        draw,
        (
            "--obj Brain --draws 3 --overwrite",
            "--obj Chest --shots 1 2 --seed 7 --fewshot_path my_lists",
        ),
    ),
}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line. Raises UserError. Needs no torch."""
    examples = [f"{name} {entry.examples[0]}" for name, entry in COMMANDS.items()]
    parser = Parser("prepare_data.py", "Download, check, convert and draw data.", examples)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, entry in COMMANDS.items():
        description = f"{entry.summary[0].upper()}{entry.summary[1:]}."
        entry.add_flags(
            commands.add_parser(
                name, help=entry.summary, description=description, examples=entry.examples
            )
        )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """Run the chosen command and print the paths of the files it wrote. Raises UserError."""
    options = parse(argv)
    paths = COMMANDS[options.command].run(options)
    for path in paths:
        print(path)
    return paths


if __name__ == "__main__":
    command(main)
