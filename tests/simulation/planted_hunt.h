// How tests check their checkers: a planted bug must be caught within a bounded number of seeds.
#pragma once

#include <catch2/catch.hpp>

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <optional>
#include <string>
#include <string_view>

#include "common/planted_bug.h"
#include "common/text.h"

namespace sluice::simulation {

struct Planting {
  PlantedBug bug;
  std::string_view name;
};

struct Caught {
  uint64_t seed = 0;
  std::string by;
};

inline constexpr int kCannotHunt = 2;

/// Runs seeds from 1 on with the bug planted until one is broken. `run(seed)` names the rule that it broke, if any.
// In a process of its own: a planted bug may also run into one of the code's own checks, which ends it; an exception of
// the standard library counts as one.
template <class Run>
std::optional<Caught> Hunt(PlantedBug bug, uint64_t seeds_max, Run run) {
  int channel[2];
  if (pipe(channel) != 0) return std::nullopt;
  const pid_t child = fork();
  if (child == 0) {
    close(channel[0]);
    if (std::freopen("/dev/null", "w", stderr) == nullptr) _exit(kCannotHunt);
    PlantBug(bug);
    for (uint64_t seed = 1; seed <= seeds_max; ++seed) {
      std::string line = Cat(seed, "\n");
      if (write(channel[1], line.data(), line.size()) < 0) _exit(kCannotHunt);
      std::optional<std::string_view> broken;
      try {
        broken = run(seed);
      } catch (const std::exception&) {
        _exit(1);
      }
      if (!broken) continue;
      line = Cat("caught by: ", *broken, "\n");
      if (write(channel[1], line.data(), line.size()) < 0) _exit(kCannotHunt);
      _exit(1);
    }
    _exit(0);
  }
  close(channel[1]);
  std::string said;
  char buffer[4096];
  for (ssize_t got = 0; (got = read(channel[0], buffer, sizeof(buffer))) > 0;) {
    said.append(buffer, static_cast<size_t>(got));
  }
  close(channel[0]);
  int status = 0;
  waitpid(child, &status, 0);
  // Neither is the bug's doing.
  REQUIRE_FALSE((WIFEXITED(status) && WEXITSTATUS(status) == kCannotHunt));
  REQUIRE_FALSE((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return std::nullopt;
  Caught caught;
  caught.by = "a check of the code's own";
  for (size_t at = 0; at < said.size();) {
    const size_t end = said.find('\n', at);
    const std::string line = said.substr(at, end - at);
    if (line.starts_with("caught by: ")) {
      caught.by = line.substr(11);
    } else {
      caught.seed = std::strtoull(line.c_str(), nullptr, 10);
    }
    at = end == std::string::npos ? said.size() : end + 1;
  }
  return caught;
}

/// Each of `plantings` must be caught.
template <class Plantings, class Run>
void HuntAll(const Plantings& plantings, uint64_t seeds_max, Run run) {
  for (const Planting& planting : plantings) {
    const std::optional<Caught> caught = Hunt(planting.bug, seeds_max, run);
    INFO("not caught: " << planting.name);
    CHECK(caught);
    if (caught) WARN(planting.name << ": seed " << caught->seed << ", by \"" << caught->by << "\"");
  }
}

/// With no bug planted the same seeds must hold.
template <class Run>
void HuntNothing(uint64_t seeds_max, Run run) {
  const std::optional<Caught> caught = Hunt(PlantedBug::kNone, seeds_max, run);
  if (caught) FAIL("seed " << caught->seed << " is broken by \"" << caught->by << "\" without a planted bug");
}

}  // namespace sluice::simulation
