// The command line that every simulation has:
//
//   PROGRAM --seeds N [--from S]   runs N seeds, says which break what, and how often everything struck
//   PROGRAM --replay SEED          runs one seed and writes down everything that happens
//   PROGRAM --hash S N             the trace hashes of N seeds from S on, one a line
#pragma once

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "tests/simulation/seed_report.h"

namespace sluice::simulation {

/// `Simulation` has:
///   static constexpr const char* kProgram;
///   using Outcome: with `violation`, `trace_hash`;
///   static Outcome Run(uint64_t seed, std::ostream* trace);
///   static std::string Report(const Outcome&);
///   void Add(const Outcome&);
///   void Say(std::ostream&) const: the sums of what was added.
template <class Simulation>
class SimMain {
 public:
  static int Main(int argc, char** argv) {
    const std::vector<std::string> args(argv + 1, argv + argc);
    ReportSeedOnAbort(Simulation::kProgram);
    const auto number = [&](size_t i) { return std::strtoull(args[i].c_str(), nullptr, 10); };
    if (args.size() == 2 && args[0] == "--replay") return Replay(number(1));
    if (args.size() == 3 && args[0] == "--hash") return SayHashes(number(1), number(2));
    if (args.size() == 2 && args[0] == "--seeds") return RunMany(1, number(1));
    if (args.size() == 4 && args[0] == "--seeds" && args[2] == "--from") return RunMany(number(3), number(1));
    std::cerr << Simulation::kProgram << " --seeds N [--from S] | --replay SEED | --hash S N\n";
    return 2;
  }

 private:
  static int Replay(uint64_t seed) {
    CurrentSeed() = seed;
    const auto outcome = Simulation::Run(seed, &std::cout);
    std::cout << Simulation::Report(outcome) << '\n';
    return outcome.violation ? 1 : 0;
  }
  static int SayHashes(uint64_t from, uint64_t count) {
    for (uint64_t seed = from; seed < from + count; ++seed) {
      std::cout << Simulation::Run(seed, nullptr).trace_hash << '\n';
    }
    return 0;
  }
  static int RunMany(uint64_t from, uint64_t count) {
    Simulation sums;
    uint64_t broken = 0;
    for (uint64_t seed = from; seed < from + count; ++seed) {
      CurrentSeed() = seed;
      const auto outcome = Simulation::Run(seed, nullptr);
      sums.Add(outcome);
      if (!outcome.violation) continue;
      ++broken;
      std::cout << Simulation::Report(outcome) << std::endl;
    }
    std::cout << count << " seeds, " << broken << " broken; ";
    sums.Say(std::cout);
    return broken == 0 ? 0 : 1;
  }
};

}  // namespace sluice::simulation
