#!/usr/bin/python3
"""Runs clang 14 over our sources, one process per core, for tools/check.

usage: tools/clang_each.py syntax|tidy BUILD_DIR FILE...

`syntax` compiles each .cc without writing anything, with the flags that g++ got and the same
warnings as errors: a second compiler's opinion. `tidy` runs clang-tidy with .clang-tidy over up
to eight .cc of a folder at once: it spends most of its time in the headers, which they share.
Prints what a tool says only where it says something; exits 1 if there was one.
"""

import concurrent.futures
import json
import os
import shlex
import subprocess
import sys
import tempfile

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
RUN_SECONDS_MAX = 300
TIDY_FILES_MAX = 8

# Of g++'s command line: what names a header, a macro or the language. Optimisation and
# instrumentation are not clang's business here.
WANTED = ("-I", "-D", "-std=", "-W", "-isystem", "-pthread")


def flags_of(entry):
    words = shlex.split(entry["command"])
    flags = []
    for position, word in enumerate(words):
        if word == "-isystem":
            flags += [word, words[position + 1]]
        elif word != "-isystem" and word.startswith(WANTED) and not word.startswith("-Wl,"):
            flags.append(word)
    return flags


def syntax_commands(entries):
    """One command a file: each must stand alone."""
    # -Wno-restrict and its like are g++'s own names.
    return {path: ["clang++-14", "-fsyntax-only", *flags_of(entry),
                   "-Wno-unknown-warning-option", entry["file"]]
            for path, entry in entries.items()}


def tidy_commands(entries, scratch):
    """One command for some files of a folder, which a file in `scratch` includes."""
    folders = {}
    for path, entry in entries.items():
        folders.setdefault(os.path.dirname(path), []).append(entry)
    commands = {}
    for folder, members in folders.items():
        count = -(-len(members) // TIDY_FILES_MAX)
        for number in range(count):
            some = members[number::count]
            # By this name the analyzer knows that what is included is code, not headers.
            one = os.path.join(scratch, f"UnifiedSource_{folder.replace('/', '_')}_{number}.cc")
            with open(one, "w", encoding="utf-8") as file:
                for entry in some:
                    file.write(f'#include "{entry["file"]}"'
                               "  // NOLINT(bugprone-suspicious-include)\n")
            commands[f"{folder} ({number + 1} of {count})"] = [
                "clang-tidy-14", "--quiet", f"--config-file={ROOT}/.clang-tidy", one, "--",
                *flags_of(some[0]), "-Wno-unknown-warning-option"]
    return commands


def run(command):
    try:
        done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=RUN_SECONDS_MAX, check=False)
    except subprocess.TimeoutExpired:
        return f"no answer within {RUN_SECONDS_MAX} s"
    if done.returncode == 0:
        return ""
    return done.stdout or f"exit code {done.returncode}"


def main():
    if len(sys.argv) < 3 or sys.argv[1] not in ("syntax", "tidy"):
        sys.exit(__doc__)
    tool, build, wanted = sys.argv[1], sys.argv[2], sys.argv[3:]
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as file:
        entries = {os.path.relpath(os.path.realpath(entry["file"]), ROOT): entry
                   for entry in json.load(file)}
    unknown = [path for path in wanted if path not in entries]
    known = {path: entries[path] for path in wanted if path in entries}
    bad = 0
    with tempfile.TemporaryDirectory(prefix="quorate-tidy-") as scratch, \
            concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        commands = syntax_commands(known) if tool == "syntax" else tidy_commands(known, scratch)
        jobs = {name: pool.submit(run, command) for name, command in commands.items()}
        for name, job in jobs.items():
            said = job.result()
            if said:
                bad += 1
                print(f"--- {name}\n{said.rstrip()}", flush=True)
    for path in unknown:
        print(f"{path}: no preset builds it")
    print(f"{len(known)} files in {len(commands)} runs, {bad} with something to say")
    return 1 if bad or unknown else 0


if __name__ == "__main__":
    sys.exit(main())
