// cluster_sim: runs seeds of the simulation of whole nodes by hand.
//
//   cluster_sim --seeds N [--from S]   runs N seeds, says which break what, and how often everything struck
//   cluster_sim --replay SEED          runs one seed and writes down everything that happens
//   cluster_sim --hash S N             the trace hashes of N seeds from S on, one a line
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "tests/simulation/cluster/world.h"
#include "tests/simulation/seed_report.h"

namespace sluice::cluster_simulation {
namespace {

int Usage() {
  std::cerr << "cluster_sim --seeds N [--from S] | --replay SEED | --hash S N\n";
  return 2;
}

int RunMany(uint64_t from, uint64_t count) {
  HitCounts hits;
  uint64_t broken = 0, events = 0;
  int64_t sent = 0, acknowledged = 0, unknown = 0, seen = 0;
  absl::Duration simulated;
  for (uint64_t seed = from; seed < from + count; ++seed) {
    simulation::CurrentSeed() = seed;
    const Outcome outcome = RunSeed(seed);
    hits.Add(outcome.hits);
    events += outcome.events;
    sent += outcome.sent;
    acknowledged += outcome.acknowledged;
    unknown += outcome.unknown;
    seen += outcome.batches_seen;
    simulated += outcome.simulated;
    if (!outcome.violation) continue;
    ++broken;
    std::cout << Report(outcome) << std::endl;
  }
  std::cout << count << " seeds, " << broken << " broken; " << events << " events, " << absl::ToInt64Seconds(simulated)
            << " simulated seconds, " << sent << " items sent, " << acknowledged << " acknowledged, " << unknown
            << " unknown, " << seen << " batches seen\n";
  for (size_t i = 0; i < kHits; ++i) {
    std::cout << "  " << HitName(static_cast<Hit>(i)) << ": " << hits.of(static_cast<Hit>(i)) << '\n';
  }
  return broken == 0 ? 0 : 1;
}

int Main(const std::vector<std::string>& args) {
  simulation::ReportSeedOnAbort("cluster_sim");
  const auto number = [&](size_t i) { return std::strtoull(args[i].c_str(), nullptr, 10); };
  if (args.size() == 2 && args[0] == "--replay") {
    simulation::CurrentSeed() = number(1);
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
}  // namespace sluice::cluster_simulation

int main(int argc, char** argv) {
  return sluice::cluster_simulation::Main(std::vector<std::string>(argv + 1, argv + argc));
}
