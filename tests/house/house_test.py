#!/usr/bin/env python3
"""The house rules' own tests: a planted fault is caught, and what is allowed passes."""

import json
import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import include_rules  # noqa: E402
import openssl_first  # noqa: E402
import tidy  # noqa: E402


class ForbiddenIncludes(unittest.TestCase):
    def assert_caught(self, path, line):
        self.assertEqual(1, len(include_rules.problems_in(path, line + "\n")), f"{path}: {line} passed")

    def assert_allowed(self, path, line):
        self.assertEqual([], include_rules.problems_in(path, line + "\n"))

    def test_a_folder_may_not_look_up(self):
        self.assert_caught("storage/segment.cc", '#include "replication/replicated_log.h"')
        self.assert_caught("storage/segment.h", '#include "broker/api.h"')
        self.assert_caught("storage/segment.cc", '#include "sluice/v1/log.pb.h"')
        self.assert_caught("common/bytes.cc", '#include "storage/journal.h"')
        self.assert_caught("common/bytes.cc", '#include "runtime/thread_executor.h"')
        self.assert_caught("client/producer.cc", '#include "broker/api.h"')
        self.assert_caught("connector/pipeline.cc", '#include "storage/journal.h"')
        self.assert_caught("replication/core/raft.cc", '#include "storage/journal.h"')
        self.assert_caught("broker/partition.cc", '#include "sluice/v1/log.pb.h"')
        self.assert_caught("broker/partition.cc", '#include "runtime/thread_executor.h"')

    def test_a_folder_may_look_down(self):
        self.assert_allowed("storage/segment.cc", '#include "common/record/batch.h"')
        self.assert_allowed("broker/partition.cc", '#include "replication/replicated_log.h"')
        self.assert_allowed("broker/controller.cc", '#include "sluice/state/v1/controller.pb.h"')
        self.assert_allowed("broker/rpc/server.cc", '#include "sluice/v1/log.grpc.pb.h"')
        self.assert_allowed("broker/main.cc", '#include "runtime/thread_executor.h"')
        self.assert_allowed("tools/dump.cc", '#include "storage/journal.h"')

    def test_production_code_never_includes_tests_but_a_test_may(self):
        self.assert_caught("storage/segment.cc", '#include "tests/sim/file_system.h"')
        self.assert_allowed("storage/segment_test.cc", '#include "tests/sim/file_system.h"')

    def test_the_world_is_reached_through_the_seams(self):
        self.assert_caught("broker/partition.cc", "#include <thread>")
        self.assert_caught("broker/partition.cc", "#include <boost/asio/io_context.hpp>")
        self.assert_caught("storage/journal.cc", "#include <fcntl.h>")
        self.assert_caught("storage/journal.cc", '#include "absl/time/clock.h"')
        self.assert_caught("storage/journal.cc", "  auto now = std::chrono::steady_clock::now();")
        self.assert_caught("replication/core/raft.cc", "#include <chrono>")
        self.assert_allowed("runtime/posix_file.cc", "#include <fcntl.h>")
        self.assert_allowed("storage/journal.cc", "// not std::chrono::steady_clock: the seam's")

    def test_heavy_headers_stay_out_of_headers(self):
        self.assert_caught("broker/controller.h", '#include "sluice/state/v1/controller.pb.h"')
        self.assert_caught("client/producer.h", "#include <grpcpp/channel.h>")
        self.assert_caught("broker/partition.cc", "#include <grpcpp/grpcpp.h>")
        self.assert_caught("storage/segment.cc", "#include <rocksdb/db.h>")
        self.assert_caught("common/bytes.cc", '#include "absl/synchronization/mutex.h"')

    def test_a_planted_file_in_a_tree_fails_the_check(self):
        with tempfile.TemporaryDirectory() as root:
            os.makedirs(os.path.join(root, "storage", "deep"))
            path = os.path.join(root, "storage", "deep", "planted.h")
            with open(path, "w", encoding="utf-8") as file:
                file.write('#pragma once\n  #  include "broker/api.h"\n')
            count, lines = include_rules.check(root)
            self.assertEqual(1, count)
            self.assertEqual(1, len(lines))
            self.assertTrue(lines[0].startswith("storage/deep/planted.h:2: "), lines)


class FuzzTargets(unittest.TestCase):
    def test_each_has_seeds_to_begin_with(self):
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        targets = [os.path.basename(path)[:-len(".cc")] for path in include_rules.sources(root) if path.endswith("_fuzz.cc")]
        self.assertGreater(len(targets), 10)
        seeds = os.path.join(root, "tests", "fuzz")
        self.assertEqual([], [target for target in targets if not os.path.isdir(os.path.join(seeds, target))])


class WhatClangTidyLooksAt(unittest.TestCase):
    def test_what_is_new_or_newer_than_its_stamp_and_nothing_else(self):
        with tempfile.TemporaryDirectory() as root:
            def made(name, when):
                path = os.path.join(root, name)
                with open(path, "w", encoding="utf-8"):
                    pass
                os.utime(path, (when, when))
                return path

            source, rules = made("a.o", 10), made("rules", 5)
            self.assertTrue(tidy.stale(os.path.join(root, "never"), source, rules))
            self.assertFalse(tidy.stale(made("later", 11), source, rules))
            self.assertTrue(tidy.stale(made("earlier", 9), source, rules))
            self.assertTrue(tidy.stale(made("before the rules", 11), source, made("new rules", 12)))
            self.assertTrue(tidy.stale(made("no object", 11), os.path.join(root, "b.o"), rules))

    def test_sources_and_their_objects_are_read_from_the_build(self):
        with tempfile.TemporaryDirectory() as root:
            build = os.path.join(root, "build")
            os.mkdir(build)
            with open(os.path.join(build, "compile_commands.json"), "w", encoding="utf-8") as file:
                json.dump([{"directory": build, "file": f"{root}/a/b.cc", "command": "g++ -c -o x/b.cc.o ../a/b.cc"},
                           {"directory": build, "file": "/elsewhere.cc", "command": "g++ -c -o y.o /elsewhere.cc"}], file)
            self.assertEqual({"a/b.cc": f"{build}/x/b.cc.o"}, tidy.objects(build, root))

    def test_tests_are_left_out(self):
        for path in ("tests/sim/a.cc", "bench/b.cc", "common/x_test.cc", "common/x_fuzz.cc", "build/release/catch_main.cc"):
            self.assertTrue(tidy.NOT_OURS_TO_CHECK.search(path), path)
        self.assertFalse(tidy.NOT_OURS_TO_CHECK.search("common/testing.cc"))


class OpenSslOrder(unittest.TestCase):
    def test_the_system_first_is_right(self):
        self.assertIsNone(openssl_first.problem(["libssl.so.3", "libcrypto.so.3", "libsimdjson.so.14", "libparquet.so.2600", "libc.so.6"]))

    def test_every_other_order_is_caught(self):
        self.assertIsNotNone(openssl_first.problem(["libparquet.so.2600", "libssl.so.3", "libcrypto.so.3", "libsimdjson.so.14"]))
        self.assertIsNotNone(openssl_first.problem(["libssl.so.3", "libcrypto.so.3", "libparquet.so.2600", "libsimdjson.so.14"]))
        self.assertIsNotNone(openssl_first.problem(["libssl.so.3", "libcrypto.so.3", "libparquet.so.2600"]))
        self.assertIsNotNone(openssl_first.problem(["libssl.so.3", "libparquet.so.2600", "libcrypto.so.3"]))
        self.assertIsNotNone(openssl_first.problem(["libparquet.so.2600"]))
        self.assertIsNotNone(openssl_first.problem(["libssl.so.3", "libcrypto.so.3"]))


if __name__ == "__main__":
    unittest.main()
