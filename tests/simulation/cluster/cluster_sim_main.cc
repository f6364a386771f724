// cluster_sim: runs seeds of the simulation of whole nodes by hand; its command line is sim_main.h's.
#include "tests/simulation/cluster/world.h"
#include "tests/simulation/sim_main.h"

namespace sluice::cluster_simulation {
namespace {

class Simulation {
 public:
  static constexpr const char* kProgram = "cluster_sim";
  static Outcome Run(uint64_t seed, std::ostream* trace) { return RunSeed(seed, trace); }
  static std::string Report(const Outcome& outcome) { return cluster_simulation::Report(outcome); }

  void Add(const Outcome& outcome) {
    hits_.Add(outcome.hits);
    events_ += outcome.events;
    simulated_ += outcome.simulated;
    sent_ += outcome.sent;
    acknowledged_ += outcome.acknowledged;
    unknown_ += outcome.unknown;
    seen_ += outcome.batches_seen;
  }
  void Say(std::ostream& out) const {
    out << events_ << " events, " << absl::ToInt64Seconds(simulated_) << " simulated seconds, " << sent_
        << " items sent, " << acknowledged_ << " acknowledged, " << unknown_ << " unknown, " << seen_
        << " batches seen\n";
    for (size_t i = 0; i < kHits; ++i) {
      out << "  " << HitName(static_cast<Hit>(i)) << ": " << hits_.of(static_cast<Hit>(i)) << '\n';
    }
  }

 private:
  HitCounts hits_;
  uint64_t events_ = 0;
  absl::Duration simulated_;
  int64_t sent_ = 0, acknowledged_ = 0, unknown_ = 0, seen_ = 0;
};

}  // namespace
}  // namespace sluice::cluster_simulation

int main(int argc, char** argv) {
  return sluice::simulation::SimMain<sluice::cluster_simulation::Simulation>::Main(argc, argv);
}
