"""Kill scripts at any moment, give the same command again, and compare with an undisturbed run.

    python -m tests.faults.kills --kills 60

Half of the kills come at a moment that is drawn, the other half as soon as a file is being written.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from synthetic.images import write_demo
from synthetic.network import write_demo_weights
from tests.faults.scenarios import Scenario, Snapshot, World, prepare, scenarios, snapshot
from tests.methods import load_mvfa
from tests.script_runs import ROOT

# how many of sixty kills a command gets
SHARES = {
    "train_few": 10,
    "train_few, again": 8,
    "train_zero": 10,
    "test_few": 6,
    "test_zero": 4,
    "calibrate": 5,
    "predict": 7,
    "reproduce": 6,
    "convert": 2,
    "draw": 2,
}
TWICE = 0.3  # of the runs are killed a second time
WAIT = 300.0  # seconds that a command may take
PAUSE = 0.002  # seconds between two looks at the files


@dataclass(frozen=True)
class Undisturbed:
    """What a command leaves, and the seconds from its first file to its end."""

    files: Snapshot
    seconds: float


def start(scenario: Scenario) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        scenario.command(),
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def paths(folder: Path) -> set[str]:
    """Return the paths of all files below a folder."""
    return {f"{place}/{name}" for place, _, names in os.walk(folder) for name in names}


def wait_for_files(process: subprocess.Popen[bytes], world: World, before: set[str]) -> None:
    """Return when a command has made its first file, or has ended."""
    while process.poll() is None and paths(world.work) <= before:
        time.sleep(PAUSE)


def finish(scenario: Scenario, process: subprocess.Popen[bytes]) -> None:
    """Wait for a command. Raises RuntimeError unless it ends well."""
    _, said = process.communicate(timeout=WAIT)
    if process.returncode:
        text = said.decode(errors="replace")[-2000:]
        raise RuntimeError(f"{scenario.name} ended with status {process.returncode}: {text}")


def undisturbed(scenario: Scenario, world: World) -> Undisturbed:
    """Run a command to its end."""
    world.fresh()
    before = paths(world.work)
    process = start(scenario)
    wait_for_files(process, world, before)
    began = time.monotonic()
    finish(scenario, process)
    return Undisturbed(snapshot(world.work), time.monotonic() - began)


def kill(scenario: Scenario, world: World, seconds: float, draw: random.Random) -> bool:
    """Start a command and kill it; return whether it was still running.

    At a moment drawn from `seconds`, or while a file is written: one of the first to the tenth.
    """
    before = paths(world.work)
    process = start(scenario)
    wait_for_files(process, world, before)
    if draw.random() < 0.5:
        time.sleep(draw.uniform(0, seconds))
    else:
        wait_for_writing(process, world, draw.randrange(10))
    with suppress(ProcessLookupError):  # it has ended
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def wait_for_writing(process: subprocess.Popen[bytes], world: World, number: int) -> None:
    """Return when the file of a number, counted from 0, is being written, or the end is reached."""
    seen: set[str] = set()
    while process.poll() is None and len(seen) <= number:
        time.sleep(PAUSE / 10)
        seen |= {path for path in paths(world.work) if path.endswith(".part")}


def unfinished_as_whole(world: World, expected: Snapshot, earlier: Snapshot) -> Iterator[str]:
    """Yield files that claim to be whole after a kill, and are neither the earlier nor the new."""
    for path in world.work.rglob("*"):
        if path.name == "metrics.json" or path.suffix in (".pth", ".detector"):
            name = path.relative_to(world.work).as_posix()
            content = snapshot(path.parent)[path.name]
            if content not in (expected.get(name), earlier.get(name)):
                yield f"{name} is neither the earlier file nor the whole one"
            if path.suffix == ".pth" and load_mvfa(path).about.get("ended") is not True:
                yield f"{name} does not say that its training ended"


def differences(found: Snapshot, expected: Snapshot) -> Iterator[str]:
    """Yield how the files of a run differ from those of an undisturbed one."""
    for name in sorted({*found, *expected}):
        if name not in expected:
            yield f"{name} was left over"
        elif name not in found:
            yield f"{name} is missing"
        elif found[name] != expected[name]:
            yield f"{name} differs"


def trial(
    scenario: Scenario, world: World, expected: Undisturbed, draw: random.Random
) -> tuple[int, list[str]]:
    """Kill a command once or twice and run it to its end; return the kills and what is wrong."""
    earlier = snapshot(world.start)
    faults: list[str] = []
    world.fresh()
    while not kill(scenario, world, expected.seconds, draw):  # it has ended before
        world.fresh()
    kills = 1
    faults += unfinished_as_whole(world, expected.files, earlier)
    if draw.random() < TWICE:
        kills += kill(scenario, world, expected.seconds, draw)
        faults += unfinished_as_whole(world, expected.files, earlier)
    try:
        finish(scenario, start(scenario))
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        return kills, [*faults, str(error)]
    return kills, [*faults, *differences(snapshot(world.work), expected.files)]


def demo_world(root: Path) -> World:
    """Make demo weights, images and lists below a folder, and what the commands start from."""
    weights = write_demo_weights(root / "weights")
    write_demo(root / "demo", valid=6, test=8, shots=(2, 4))
    world = World(weights, root / "demo" / "data", root / "demo" / "fewshot_seed", root)
    prepare(world)
    return world


def run(world: World, shares: dict[str, int], seed: int) -> list[str]:
    """Kill commands so often, print a line for each of them, and return what was wrong."""
    wrong = []
    print(f"{'command':18} {'runs':>5} {'killed':>7} {'equal':>6}")
    for name, times in shares.items():
        scenario = scenarios(world)[name]
        draw = random.Random(f"{seed} {name}")
        expected = undisturbed(scenario, world)
        again = list(differences(undisturbed(scenario, world).files, expected.files))
        if again:
            wrong += [f"{name}, not killed: {fault}" for fault in again]
        counts: Counter[str] = Counter()
        for number in range(times):
            kills, faults = trial(scenario, world, expected, draw)
            counts["kills"] += kills
            counts["equal"] += not faults
            wrong += [f"{name}, run {number}: {fault}" for fault in faults]
        print(f"{name:18} {times:5} {counts['kills']:7} {counts['equal']:6}", flush=True)
    return wrong


def main() -> int:
    """Run as the flags say; return 1 if anything differed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=sum(SHARES.values()), help="runs to kill")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--only", nargs="+", choices=SHARES, default=list(SHARES))
    options = parser.parse_args()
    total = sum(SHARES[name] for name in options.only)
    shares = {name: max(1, round(SHARES[name] * options.kills / total)) for name in options.only}
    root = Path(tempfile.mkdtemp(prefix="mvfa-faults-"))
    try:
        wrong = run(demo_world(root), shares, options.seed)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(*wrong, sep="\n")
    print(f"{sum(shares.values())} runs were killed and given again; {len(wrong)} faults")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
