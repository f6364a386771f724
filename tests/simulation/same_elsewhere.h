// A seed gives the same run in every process: nothing in it may hang on addresses, hashes of this process, or time.
#pragma once

#include <catch2/catch.hpp>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "common/text.h"

namespace sluice::simulation {

/// Has `program` (sim_main.h) run `count` seeds from `from` on, and compares with `hash_of(seed)`.
template <class HashOf>
void RequireSameElsewhere(const std::string& program, uint64_t from, uint64_t count, HashOf hash_of) {
  const std::string command = Cat(program, " --hash ", from, " ", count);
  const std::unique_ptr<FILE, int (*)(FILE*)> other(popen(command.c_str(), "r"), pclose);
  REQUIRE(other != nullptr);
  for (uint64_t seed = from; seed < from + count; ++seed) {
    char line[64] = {};
    REQUIRE(fgets(line, sizeof(line), other.get()) != nullptr);
    INFO("seed " << seed);
    REQUIRE(std::strtoull(line, nullptr, 10) == hash_of(seed));
  }
}

}  // namespace sluice::simulation
