"""The programs in examples/go: the same story as examples_test.py tells of the others. Skipped, and said
so, where Go or its modules cannot be had.
"""

import os
import shutil
import subprocess
import sys
import unittest

import examples_test
from quorate_cluster import ROOT, main, story

# One for all presets: it is the server that they differ in.
FOLDER = ROOT / "build/tools/examples-go"
ENVIRONMENT = {**os.environ, "GOTOOLCHAIN": "local"}


def why_not():
    """Makes the programs; what is missing for that, or None. What is wrong with them is an error."""
    go = shutil.which("go")
    if go is None:
        return "Go is not here"
    shutil.rmtree(FOLDER, ignore_errors=True)
    shutil.copytree(ROOT / "examples/go", FOLDER, ignore=shutil.ignore_patterns("bin", "quorate"))
    got = subprocess.run([go, "mod", "download"], cwd=FOLDER, env=ENVIRONMENT, timeout=300,
                         stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if got.returncode != 0:
        return "the Go module proxy or this Go does not give the modules: " + got.stderr.strip()[-300:]
    subprocess.run(["./generate", str(ROOT / "proto")], cwd=FOLDER, env=ENVIRONMENT, timeout=600,
                   check=True)
    subprocess.run([go, "vet", "./..."], cwd=FOLDER, env=ENVIRONMENT, timeout=600, check=True)
    subprocess.run([go, "build", "-o", "bin/", "./basics", "./counter", "./watch", "./pipeline"],
                   cwd=FOLDER, env=ENVIRONMENT, timeout=600, check=True)
    story("generated and built")
    return None


class GoExamples(examples_test.Examples):
    def languages(self, folder):
        return [examples_test.Programs("go", lambda name: [str(FOLDER / "bin" / name)])]


class GoFormat(unittest.TestCase):
    def test_gofmt_has_nothing_to_say(self):
        gofmt = os.path.join(os.path.dirname(os.path.realpath(shutil.which("go"))), "gofmt")
        done = subprocess.run([gofmt, "-l", str(ROOT / "examples/go")], capture_output=True,
                              text=True, check=True)
        self.assertEqual(done.stdout, "")


if __name__ == "__main__":
    missing = why_not()
    if missing:
        print(f"SKIPPED the Go examples: {missing}", flush=True)
        sys.exit(77)
    main()
