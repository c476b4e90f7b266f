"""Plants includes that point the wrong way and expects each to be named, with file and line."""

import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools"))
import lint_includes  # noqa: E402


class LintIncludes(unittest.TestCase):
    def complaints(self, path, *includes):
        """What the lint says about a tree whose one file has these includes."""
        with tempfile.TemporaryDirectory() as root:
            os.makedirs(os.path.join(root, os.path.dirname(path)))
            with open(os.path.join(root, path), "w", encoding="utf-8") as file:
                file.write("// a file\n" + "".join(f"#include {name}\n" for name in includes))
            return lint_includes.lint(root)

    def assert_fine(self, path, *includes):
        self.assertEqual(self.complaints(path, *includes), [])

    def assert_refused(self, path, include, word):
        found = self.complaints(path, "<vector>", include)
        self.assertEqual(len(found), 1, found)
        self.assertTrue(found[0].startswith(f"{path}:3: "), found)
        self.assertIn(word, found[0])

    def test_downward_is_fine(self):
        self.assert_fine("raft/core/core.cc", '"raft/core/core.h"', '"base/check.h"', "<vector>")
        self.assert_fine("raft/node.h", '"raft/core/core.h"', '"absl/status/status.h"', "<thread>")
        self.assert_fine("storage/state.cc", '"raft/ports.h"', "<sqlite3.h>", "<sys/stat.h>",
                         '"quorate/v1/command.pb.h"')
        self.assert_fine("services/server.cc", '"storage/log.h"', "<grpcpp/grpcpp.h>",
                         '"quorate/v1/config.grpc.pb.h"')

    def test_upward_is_refused(self):
        self.assert_refused("base/ids.h", '"raft/core/types.h"', "wrong way")
        self.assert_refused("raft/core/core.h", '"raft/ports.h"', "wrong way")
        self.assert_refused("raft/node.h", '"storage/log.h"', "wrong way")
        self.assert_refused("storage/log.cc", '"services/errors.h"', "wrong way")
        self.assert_refused("discovery/resolver.h", '"raft/ports.h"', "wrong way")
        self.assert_refused("services/server.cc", '"tools/command.h"', "wrong way")

    def test_the_core_is_standard_library_only(self):
        self.assert_refused("raft/core/core.cc", '"absl/status/status.h"', "standard library")
        self.assert_refused("raft/core/core.cc", '"quorate/v1/raft.pb.h"', "standard library")
        self.assert_refused("raft/core/core.cc", "<unistd.h>", "standard library")
        self.assert_refused("raft/core/core.cc", "<thread>", "never acts")
        self.assert_refused("raft/core/core.cc", "<sqlite3.h>", "standard library")

    def test_storage_and_ingress_know_no_grpc(self):
        for folder in ("storage", "ingress"):
            self.assert_refused(f"{folder}/a.cc", "<grpcpp/grpcpp.h>", "not among")
            self.assert_refused(f"{folder}/a.cc", '"quorate/v1/config.grpc.pb.h"', "not among")
        self.assert_refused("ingress/a.cc", "<sqlite3.h>", "not among")
        self.assert_refused("raft/node.cc", "<sqlite3.h>", "not among")

    def test_paths_start_at_the_root(self):
        self.assert_refused("raft/core/core.cc", '"types.h"', "root")

    def test_abseil_mutex_is_banned_everywhere(self):
        self.assert_refused("services/server.cc", '"absl/synchronization/mutex.h"', "std::mutex")


if __name__ == "__main__":
    unittest.main()
