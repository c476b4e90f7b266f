#!/usr/bin/python3
"""The same seed is the same run, whichever compiler, optimisation or sanitizer has built it.

usage: trace_hashes.py QUORATE_SIM BUILD

Runs ten seeds in both modes and compares their trace hashes with those that other builds of the
same source have left in build/trace_hashes, one file per build; then leaves its own. Runs them
twice, so that a build alone also shows that nothing but the seed decides.

Where a run differs: quorate-sim --seed N --trace of both builds, and diff.
QUORATE_HASHES_REQUIRED names a build that must have left its own of this very source.
Exit: 0 all alike, 1 a hash differs, a run fails or what is required is not there.
"""
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
RECORDS = ROOT / "build" / "trace_hashes"
FOLDERS = ("base", "raft", "storage", "ingress", "proto", "services", "tests/disk",
           "tests/sim")
SECONDS = 6  # virtual, of faults, in each run
MODES = {"memory": ["--memory"], "sqlite": ["--sqlite"]}


def source_hash():
    digest = hashlib.sha256()
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".cc", ".h", ".proto"):
                digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def hashes_of(sim):
    found = {}
    for mode, flags in MODES.items():
        command = [sim, "--seeds", "1..10", "--seconds", str(SECONDS), "--verbose", "--no-shrink",
                   *flags]
        done = subprocess.run(command, text=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)} fails:\n{done.stdout}")
        for seed, value in re.findall(r"^seed (\d+): .*hash ([0-9a-f]{16})$", done.stdout, re.M):
            found[f"{mode} {seed}"] = value
    if len(found) != 10 * len(MODES):
        sys.exit(f"trace_hashes: {len(found)} hashes, not {10 * len(MODES)}")
    return found


def differences(one, other, name):
    different = [run for run in one if other.get(run) != one[run]]
    for run in different:
        print(f"seed {run}: {one[run]} here, {other.get(run)} in {name}")
    return len(different)


def main():
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    sim, build = sys.argv[1:]
    required = os.environ.get("QUORATE_HASHES_REQUIRED", build)
    mine = hashes_of(sim)
    bad = differences(mine, hashes_of(sim), "the same build's next run")
    sources = source_hash()
    compared = []
    RECORDS.mkdir(parents=True, exist_ok=True)
    for record in sorted(RECORDS.glob("*.json")):
        theirs = json.loads(record.read_text())
        if record.stem == build or theirs["sources"] != sources:
            continue
        compared.append(record.stem)
        bad += differences(mine, theirs["hashes"], record.stem)
    (RECORDS / f"{build}.json").write_text(
        json.dumps({"sources": sources, "hashes": mine}, indent=1) + "\n")
    print(f"{len(mine)} runs, twice; compared with {', '.join(compared) or 'no other build'}: "
          f"{bad} differ")
    if required not in [build, *compared]:
        print(f"{required} has left no hashes of this source: run its test sim.trace_hashes first")
        bad += 1
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
