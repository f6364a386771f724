// raft_sim: runs seeds of the Raft core's simulation by hand.
//
//   raft_sim --seeds N [--from S]   runs N seeds, says which break what, and how often each fault struck
//   raft_sim --replay SEED          runs one seed and writes down everything that happens
//   raft_sim --hash S N             the trace hashes of N seeds from S on, one a line
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "tests/simulation/raft/group.h"

namespace sluice::raft_simulation {
namespace {

int Usage() {
  std::cerr << "raft_sim --seeds N [--from S] | --replay SEED | --hash S N\n";
  return 2;
}

int RunMany(uint64_t from, uint64_t count) {
  FaultCounts faults;
  uint64_t broken = 0, events = 0, terms = 0, batches = 0;
  for (uint64_t seed = from; seed < from + count; ++seed) {
    CurrentSeed() = seed;
    const Outcome outcome = RunSeed(seed);
    faults.Add(outcome.faults);
    events += outcome.events;
    terms += outcome.terms_led;
    batches += outcome.batches_committed;
    if (!outcome.violation) continue;
    ++broken;
    std::cout << Report(outcome) << std::endl;
  }
  std::cout << count << " seeds, " << broken << " broken; " << events << " events, " << terms << " terms led, "
            << batches << " batches committed\n";
  for (size_t i = 0; i < kFaultKinds; ++i) {
    std::cout << "  " << FaultName(static_cast<Fault>(i)) << ": " << faults.of(static_cast<Fault>(i)) << '\n';
  }
  return broken == 0 ? 0 : 1;
}

int Main(const std::vector<std::string>& args) {
  simulation::ReportSeedOnAbort("raft_sim");
  const auto number = [&](size_t i) { return std::strtoull(args[i].c_str(), nullptr, 10); };
  if (args.size() == 2 && args[0] == "--replay") {
    CurrentSeed() = number(1);
    const Outcome outcome = RunSeed(number(1), &std::cout);
    std::cout << Report(outcome) << '\n';
    return outcome.violation ? 1 : 0;
  }
  if (args.size() == 3 && args[0] == "--hash") {
    for (uint64_t seed = number(1); seed < number(1) + number(2); ++seed) {
      std::cout << RunSeed(seed).trace_hash << '\n';
    }
    return 0;
  }
  if (args.size() == 2 && args[0] == "--seeds") return RunMany(1, number(1));
  if (args.size() == 4 && args[0] == "--seeds" && args[2] == "--from") return RunMany(number(3), number(1));
  return Usage();
}

}  // namespace
}  // namespace sluice::raft_simulation

int main(int argc, char** argv) {
  return sluice::raft_simulation::Main(std::vector<std::string>(argv + 1, argv + argc));
}
