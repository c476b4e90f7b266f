#!/usr/bin/python3
"""Runs clang 14 over our sources, one process per core, for tools/check.

usage: tools/clang_each.py syntax|tidy BUILD_DIR FILE...

`syntax` compiles without writing anything, with the flags that g++ got and the same warnings as
errors: a second compiler's opinion. `tidy` runs clang-tidy with .clang-tidy. Both take up to eight
.cc of a target at once: most of their time goes into the headers, which they share. (That each
file stands alone is what g++ shows: in the release build, and for tests in the debug build, if
somebody makes it.)
Prints what a tool says only where it says something; exits 1 if there was one.
"""

import concurrent.futures
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
RUN_SECONDS_MAX = 300
FILES_MAX = 8

# Of g++'s command line: what names a header, a macro or the language. Optimisation and
# instrumentation are not clang's business here.
WANTED = ("-I", "-D", "-std=", "-W", "-isystem", "-pthread")


def sources_of(entry):
    """(path below ROOT, entry) of a file that the build compiles; of each that a unity file of
    CMake's includes."""
    own = os.path.realpath(entry["file"])
    if "/Unity/unity_" not in own:
        return [(os.path.relpath(own, ROOT), entry)]
    with open(own, encoding="utf-8") as file:
        included = re.findall(r'^#include "(.+)"$', file.read(), re.MULTILINE)
    return [(os.path.relpath(os.path.realpath(path), ROOT), {**entry, "file": path})
            for path in included]


def flags_of(entry):
    words = shlex.split(entry["command"])
    flags = []
    for position, word in enumerate(words):
        if word == "-isystem":
            flags += [word, words[position + 1]]
        elif word != "-isystem" and word.startswith(WANTED) and not word.startswith("-Wl,"):
            flags.append(word)
    return flags


def batches(entries, scratch):
    """Some files of one target each, which a file in `scratch` includes: name, file, flags."""
    targets = {}
    for entry in entries.values():
        command = shlex.split(entry["command"])
        target = re.match(r".*?\.dir(?=/)", command[command.index("-o") + 1]).group()
        targets.setdefault(target, []).append(entry)
    for target, members in targets.items():
        words = target.removesuffix(".dir").split("/CMakeFiles/")
        count = -(-len(members) // FILES_MAX)
        for number in range(count):
            some = members[number::count]
            # By this name the analyzer knows that what is included is code, not headers.
            one = os.path.join(scratch, f"UnifiedSource_{words[-1]}_{number}.cc")
            with open(one, "w", encoding="utf-8") as file:
                for entry in some:
                    file.write(f'#include "{entry["file"]}"'
                               "  // NOLINT(bugprone-suspicious-include)\n")
            # They have the same but for a definition that one of them has in addition.
            # -Wno-restrict and its like are g++'s own names.
            flags = [*max(map(flags_of, some), key=len), "-Wno-unknown-warning-option"]
            yield f"{' '.join(words)} ({number + 1} of {count})", one, flags


def commands_of(tool, entries, scratch):
    commands = {}
    for name, one, flags in batches(entries, scratch):
        if tool == "syntax":
            commands[name] = ["clang++-14", "-fsyntax-only", *flags, one]
        else:
            commands[name] = ["clang-tidy-14", "--quiet", f"--config-file={ROOT}/.clang-tidy", one,
                              "--", *flags]
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
        entries = dict(pair for entry in json.load(file) for pair in sources_of(entry))
    unknown = [path for path in wanted if path not in entries]
    known = {path: entries[path] for path in wanted if path in entries}
    bad = 0
    with tempfile.TemporaryDirectory(prefix="quorate-clang-") as scratch, \
            concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        commands = commands_of(tool, known, scratch)
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
