// raft_sim: runs seeds of the Raft core's simulation by hand; its command line is sim_main.h's.
#include "tests/simulation/raft/group.h"
#include "tests/simulation/sim_main.h"

namespace sluice::raft_simulation {
namespace {

class Simulation {
 public:
  static constexpr const char* kProgram = "raft_sim";
  static Outcome Run(uint64_t seed, std::ostream* trace) { return RunSeed(seed, trace); }
  static std::string Report(const Outcome& outcome) { return raft_simulation::Report(outcome); }

  void Add(const Outcome& outcome) {
    faults_.Add(outcome.faults);
    events_ += outcome.events;
    terms_ += outcome.terms_led;
    batches_ += outcome.batches_committed;
  }
  void Say(std::ostream& out) const {
    out << events_ << " events, " << terms_ << " terms led, " << batches_ << " batches committed\n";
    for (size_t i = 0; i < kFaultKinds; ++i) {
      out << "  " << FaultName(static_cast<Fault>(i)) << ": " << faults_.of(static_cast<Fault>(i)) << '\n';
    }
  }

 private:
  FaultCounts faults_;
  uint64_t events_ = 0, terms_ = 0, batches_ = 0;
};

}  // namespace
}  // namespace sluice::raft_simulation

int main(int argc, char** argv) {
  return sluice::simulation::SimMain<sluice::raft_simulation::Simulation>::Main(argc, argv);
}
