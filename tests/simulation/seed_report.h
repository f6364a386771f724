// The seed that a simulation is running, for when a CHECK stops the process.
#pragma once

#include <unistd.h>
#include <csignal>
#include <cstdint>
#include <cstdio>

namespace sluice::simulation {

inline uint64_t& CurrentSeed() {
  static uint64_t seed = 0;
  return seed;
}

/// From now on an abort says which seed it was, and how `program` shows it again.
inline void ReportSeedOnAbort(const char* program) {
  static const char* shown = "";
  shown = program;
  std::signal(SIGABRT, [](int) {
    char line[160];
    const auto seed = static_cast<unsigned long long>(CurrentSeed());
    const int size = std::snprintf(line, sizeof(line), "seed %llu stops at a check; see it again: %s --replay %llu\n",
                                   seed, shown, seed);
    if (write(STDERR_FILENO, line, static_cast<size_t>(size)) < 0) _exit(3);
    std::signal(SIGABRT, SIG_DFL);
  });
}

}  // namespace sluice::simulation
