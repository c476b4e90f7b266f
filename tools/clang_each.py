#!/usr/bin/python3
"""Runs clang 14 over our sources, one process per core, for tools/check.

usage: tools/clang_each.py syntax|tidy BUILD_DIR FILE...

`syntax` compiles each .cc without writing anything, with the flags that g++ got and the same
warnings as errors: a second compiler's opinion. `tidy` runs clang-tidy with .clang-tidy.
Prints what a tool says only for files where it says something; exits 1 if there was one.
"""

import concurrent.futures
import json
import os
import shlex
import subprocess
import sys

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
FILE_SECONDS_MAX = 300

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


def command_for(tool, build, entry):
    path = entry["file"]
    if tool == "tidy":
        return ["clang-tidy-14", "--quiet", "-p", build,
                "--extra-arg=-Wno-unknown-warning-option", path]
    # -Wno-restrict and its like are g++'s own names.
    return ["clang++-14", "-fsyntax-only", *flags_of(entry), "-Wno-unknown-warning-option", path]


def run(command, directory):
    try:
        done = subprocess.run(command, cwd=directory, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=FILE_SECONDS_MAX, check=False)
    except subprocess.TimeoutExpired:
        return f"no answer within {FILE_SECONDS_MAX} s"
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
    bad = 0
    with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        jobs = {path: pool.submit(run, command_for(tool, build, entries[path]),
                                  entries[path]["directory"])
                for path in wanted if path in entries}
        for path, job in jobs.items():
            said = job.result()
            if said:
                bad += 1
                print(f"--- {path}\n{said.rstrip()}", flush=True)
    for path in unknown:
        print(f"{path}: no preset builds it")
    print(f"{len(jobs)} files, {bad} with something to say")
    return 1 if bad or unknown else 0


if __name__ == "__main__":
    sys.exit(main())
