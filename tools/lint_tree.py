#!/usr/bin/python3
"""Small rules about files, for tools/check.

usage: tools/lint_tree.py rules      what must hold: exits 1 and names each file that breaks one
       tools/lint_tree.py lengths    files over 500 lines and functions over 70: a report, exits 0
"""

import os
import re
import subprocess
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70

# Put together here, so that this file does not find itself.
UNFINISHED = re.compile(r"\b(" + "TO" + "DO|FIX" + r"ME|XX" + r"X)\b")
FOREIGN_TEXT = ("LICENSE",)


def files():
    """The files that git knows or would add, as paths below the root."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return sorted(path for path in listed.split("\0")
                  if path and os.path.isfile(os.path.join(ROOT, path)))


def read(path):
    """The file's lines, or None when it is not text."""
    with open(os.path.join(ROOT, path), "rb") as file:
        content = file.read()
    if b"\0" in content:
        return None
    try:
        return content.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        return None


def rules():
    complaints = []
    for path in files():
        lines = read(path)
        if lines is None or path in FOREIGN_TEXT:
            continue
        for number, line in enumerate(lines, 1):
            if UNFINISHED.search(line):
                complaints.append(f"{path}:{number}: unfinished work is an issue, not a comment")
            if line.endswith("\r"):
                complaints.append(f"{path}:{number}: carriage return")
                break
        if path.endswith(".h") and "#pragma once" not in lines:
            complaints.append(f"{path}:1: no #pragma once")
        executable = os.access(os.path.join(ROOT, path), os.X_OK)
        if executable and not lines[0].startswith("#!"):
            complaints.append(f"{path}:1: executable, but has no #! line")
        if lines[0].startswith("#!") and not executable:
            complaints.append(f"{path}:1: has a #! line, but is not executable")
    complaints += one_name_twice()
    for complaint in complaints:
        print(complaint)
    return 1 if complaints else 0


# What a line at the margin of an unnamed namespace defines.
DEFINITIONS = (
    re.compile(r"(?:template\s*<.*>\s*)?(?:struct|class|enum class|enum|union)\s+(\w+)\s*"
               r"(?:final\s*)?[:{]"),
    re.compile(r"using (\w+) ="),
    re.compile(r"(?:static |inline |constexpr |const |std::atomic)[^=({]*?(\w+)(?:\[\w*\])?"
               r"\s*[=({;]"),
    re.compile(r"[\w:<>,&*\s]+?[\s&*](\w+)\("),
)


def one_name_twice():
    """Unnamed namespaces of one folder become one where several files are compiled as one: by the
    sanitizer presets and by the checks with clang. So no two of its files may use one name there."""
    seen, complaints = {}, []
    for path in sorted(files(), key=lambda path: not path.endswith(".h")):
        # A benchmark is a program of its own.
        if not path.endswith((".cc", ".h")) or path.endswith("_benchmark.cc"):
            continue
        folder, header = os.path.dirname(path), path.endswith(".h")
        inside = header
        for number, line in enumerate(read(path) or [], 1):
            if line.startswith("namespace {"):
                inside = True
            elif line.startswith("}  // namespace"):
                inside = header
            elif inside and line and line[0] not in " }#/" and not line.startswith("TEST"):
                found = next(filter(None, (d.match(line) for d in DEFINITIONS)), None)
                # A header may declare what another one defines, and overload a function.
                if found is None or (header and found.re is DEFINITIONS[-1]):
                    continue
                first = seen.setdefault((folder, found.group(1)), path)
                if first != path and not header:
                    kind = "a" if first.endswith(".h") else "an unnamed"
                    complaints.append(f"{path}:{number}: {first} has {kind} {found.group(1)} too")
    return complaints


def functions(lines):
    """(first line, number of lines) of each function body, told by clang-format's indentation:
    a line at the margin, or inside a class two columns in, that opens a brace after a
    parenthesis, up to the closing brace in the same column."""
    start = None
    for number, line in enumerate(lines, 1):
        indent = len(line) - len(line.lstrip(" "))
        if start is None:
            opens = line.rstrip().endswith("{") and indent <= 4
            head = line.strip()
            if opens and ")" in line and not re.match(
                    r"(namespace|class|struct|enum|union|if|for|while|switch|else|do|TEST)\b", head):
                # A continued signature closes where its first line began.
                begin = number - 1
                while begin > 0 and (len(lines[begin]) - len(lines[begin].lstrip(" "))) > 2 and \
                        lines[begin - 1].strip() and not lines[begin - 1].rstrip().endswith((";", "}")):
                    begin -= 1
                start = (begin + 1, min(indent, len(lines[begin]) - len(lines[begin].lstrip(" "))))
        elif line.startswith(" " * start[1] + "}") and indent == start[1]:
            yield start[0], number - start[0] + 1
            start = None


def lengths():
    long_files = long_functions = 0
    for path in files():
        if not path.endswith((".h", ".cc", ".py")):
            continue
        lines = read(path) or []
        if len(lines) > FILE_LINES_MAX:
            print(f"{path}: {len(lines)} lines")
            long_files += 1
        if path.endswith(".py"):
            continue
        for first, count in functions(lines):
            if count > FUNCTION_LINES_MAX:
                print(f"{path}:{first}: a function of {count} lines")
                long_functions += 1
    print(f"{long_files} files over {FILE_LINES_MAX} lines, "
          f"{long_functions} functions over {FUNCTION_LINES_MAX}")
    return 0


if __name__ == "__main__":
    commands = {"rules": rules, "lengths": lengths}
    if len(sys.argv) != 2 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    sys.exit(commands[sys.argv[1]]())
