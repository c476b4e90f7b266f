#!/usr/bin/python3
"""Holds the arrows of the design: which folder may include what.

usage: tools/lint_includes.py [ROOT]

Reads every .h and .cc below ROOT's library folders and prints one line for each include that
points the wrong way; exits 1 if there was one. CMake's link lists hold the same arrows for what
needs linking; headers do not need linking, hence this.
"""

import os
import re
import sys

# Folder -> the folders of ours that it may include besides itself, from the bottom up.
FOLDERS = {
    "base": [],
    "raft/core": ["base"],
    "raft": ["base", "raft/core"],
    "storage": ["base", "raft/core", "raft"],
    "ingress": ["base", "raft/core", "raft"],
    "discovery": ["base"],
    "services": ["base", "raft/core", "raft", "storage", "ingress", "discovery"],
    "tools": ["base", "raft/core", "raft", "storage", "ingress", "discovery", "services"],
}

# Folder -> what it may include from outside besides the standard library (and POSIX, below).
# "*" is anything.
MESSAGES = ["quorate/v1/*.pb.h", "google/rpc/*.pb.h", "google/protobuf/"]
OUTSIDE = {
    "base": [],
    "raft/core": [],
    "raft": ["absl/"],
    "storage": ["absl/", "sqlite3.h", "isa-l.h", "isa-l/", "xxhash.h"] + MESSAGES,
    "ingress": ["absl/"] + MESSAGES,
    "discovery": ["absl/", "ares.h", "ares_", "nameser.h"],
    "services": ["*"],
    "tools": ["*"],
}

# Decide and never act: no thread, clock or file of their own.
PURE = ["raft/core", "ingress"]
IMPURE_HEADERS = {
    "atomic", "condition_variable", "filesystem", "fstream", "future", "iostream", "mutex",
    "semaphore", "shared_mutex", "stop_token", "thread", "ctime", "random",
}

# Without POSIX: what must run unchanged in the simulator.
NO_POSIX = ["base", "raft/core", "ingress"]

# Nowhere: the thread sanitizer does not see the edges that absl::Mutex makes.
BANNED = ["absl/synchronization/"]

INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]')


def folder_of(path):
    """The longest folder of the table that `path` (below the root) lies directly in, or None."""
    directory = os.path.dirname(path)
    return directory if directory in FOLDERS else None


def is_standard(header):
    """<vector>, <cstdint>: no dot, no slash."""
    return "." not in header and "/" not in header


def is_posix(header):
    """<unistd.h>, <sys/stat.h>, <linux/fs.h>."""
    return re.match(r"^((sys|netinet|arpa|net|linux)/)?[a-z0-9_]+\.h$", header) is not None


def matches(header, patterns):
    for pattern in patterns:
        if pattern == "*":
            return True
        if "*" in pattern:
            before, after = pattern.split("*")
            # One path component: *.pb.h does not take in *.grpc.pb.h.
            middle = header[len(before):len(header) - len(after)]
            if (header.startswith(before) and header.endswith(after)
                    and "." not in middle and "/" not in middle):
                return True
        elif header.startswith(pattern):
            return True
    return False


def judge(folder, quote, header):
    """What is wrong with this include in this folder, or None."""
    if matches(header, BANNED):
        return "is not used anywhere: lock with std::mutex"
    if header.endswith(".cc"):
        return "is a source file, not a header"
    target = folder_of(header)
    if target is not None:
        if target == folder or target in FOLDERS[folder]:
            return None
        return f"points the wrong way: {folder} may include {', '.join(FOLDERS[folder]) or 'nothing'}"
    if quote == '"' and "/" not in header and not matches(header, OUTSIDE[folder]):
        return "is not given from the project's root"
    if quote == "<" and is_standard(header):
        if folder in PURE and header in IMPURE_HEADERS:
            return f"has no place in {folder}, which decides and never acts"
        return None
    if matches(header, OUTSIDE[folder]):
        return None
    if quote == "<" and is_posix(header) and header not in outside_headers():
        if folder in NO_POSIX:
            return f"is not the standard library's, and {folder} uses nothing else"
        return None
    return f"is not among what {folder} may use: {', '.join(OUTSIDE[folder]) or 'the standard library'}"


def outside_headers():
    """The third-party headers that look like POSIX's by their names."""
    return {pattern for patterns in OUTSIDE.values() for pattern in patterns if pattern.endswith(".h")}


def lint(root):
    """All complaints about the tree at `root`, as `path:line: text`, sorted."""
    complaints = []
    for folder in FOLDERS:
        directory = os.path.join(root, folder)
        if not os.path.isdir(directory):
            continue
        for name in sorted(os.listdir(directory)):
            if not name.endswith((".h", ".cc")):
                continue
            path = os.path.join(folder, name)
            with open(os.path.join(root, path), encoding="utf-8") as file:
                for number, line in enumerate(file, 1):
                    found = INCLUDE.match(line)
                    if not found:
                        continue
                    wrong = judge(folder, found.group(1), found.group(2))
                    if wrong:
                        complaints.append(f"{path}:{number}: {found.group(2)} {wrong}")
    return complaints


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(__file__), "..")
    complaints = lint(root)
    for complaint in complaints:
        print(complaint)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
