#include "runtime/system.h"

#include <signal.h>

#include <catch2/catch.hpp>
#include <set>
#include <thread>

namespace sluice::runtime {
namespace {

TEST_CASE("Monotonic time does not go back and wall time is this century's") {
  const SystemClock clock;
  const absl::Duration before = clock.Monotonic();
  std::this_thread::sleep_for(std::chrono::milliseconds(2));
  CHECK(clock.Monotonic() - before >= absl::Milliseconds(2));
  CHECK(clock.Wall() > absl::FromUnixSeconds(1700000000));
}

TEST_CASE("Random numbers do not repeat over several blocks, nor between two sources") {
  SystemRandom first;
  SystemRandom second;
  std::set<uint64_t> seen;
  for (int i = 0; i < 500; ++i) {
    seen.insert(first.Next());
    seen.insert(second.Next());
  }
  CHECK(seen.size() == 1000);
}

TEST_CASE("A termination signal ends the wait and not the process") {
  std::thread([] {
    TerminationSignals signals;
    pthread_kill(pthread_self(), SIGTERM);
    CHECK(signals.Wait() == SIGTERM);
  }).join();
}

}  // namespace
}  // namespace sluice::runtime
