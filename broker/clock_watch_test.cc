#include "broker/clock_watch.h"

#include <catch2/catch.hpp>

#include "tests/simulation/sim_executor.h"

namespace sluice::broker {
namespace {

struct Watched {
  /// Minutes that pass, with a look each; how many of the looks found a jump.
  int Pass(absl::Duration time) {
    int found = 0;
    for (absl::Duration passed; passed < time; passed += absl::Minutes(1)) {
      scheduler.RunFor(absl::Minutes(1));
      found += watch.Look() ? 1 : 0;
    }
    return found;
  }

  simulation::SimScheduler scheduler{1};
  simulation::SimClock clock{scheduler};
  ClockWatch watch{clock};
};

TEST_CASE("a jump forward is not believed for a day, and said once") {
  Watched w;
  CHECK(w.Pass(absl::Hours(1)) == 0);
  w.clock.JumpWall(absl::Hours(12));
  CHECK(w.Pass(absl::Hours(23)) == 1);
  CHECK(w.watch.ahead() == absl::Hours(12));
  CHECK(w.Pass(absl::Hours(2)) == 0);
  CHECK(w.watch.ahead() == absl::ZeroDuration());
}

TEST_CASE("each jump has a day of its own") {
  Watched w;
  w.clock.JumpWall(absl::Hours(1));
  CHECK(w.Pass(absl::Hours(20)) == 1);
  w.clock.JumpWall(absl::Hours(2));
  CHECK(w.Pass(absl::Hours(3)) == 1);
  CHECK(w.watch.ahead() == absl::Hours(3));
  CHECK(w.Pass(absl::Hours(17)) == 0);
  CHECK(w.watch.ahead() == absl::Hours(2));
  CHECK(w.Pass(absl::Hours(5)) == 0);
  CHECK(w.watch.ahead() == absl::ZeroDuration());
}

TEST_CASE("of two jumps the later one can be taken back alone") {
  Watched w;
  w.clock.JumpWall(absl::Hours(1));
  CHECK(w.Pass(absl::Hours(1)) == 1);
  w.clock.JumpWall(absl::Hours(2));
  CHECK(w.Pass(absl::Hours(1)) == 1);
  w.clock.JumpWall(-absl::Hours(2));
  CHECK(w.Pass(absl::Hours(1)) == 0);
  CHECK(w.watch.ahead() == absl::Hours(1));
  CHECK(w.Pass(absl::Hours(22)) == 0);
  CHECK(w.watch.ahead() == absl::ZeroDuration());
}

// Its monotonic clock stands still meanwhile.
TEST_CASE("a machine that sleeps each night is never far behind") {
  Watched w;
  for (int day = 0; day < 30; ++day) {
    w.clock.JumpWall(absl::Hours(12));
    CHECK(w.Pass(absl::Hours(12)) == 1);
    CHECK(w.watch.ahead() <= absl::Hours(36));
  }
}

TEST_CASE("a jump that is taken back is forgotten, and so is what goes back") {
  Watched w;
  w.clock.JumpWall(absl::Hours(12));
  CHECK(w.Pass(absl::Minutes(5)) == 1);
  w.clock.JumpWall(-absl::Hours(12));
  CHECK(w.Pass(absl::Minutes(5)) == 0);
  CHECK(w.watch.ahead() == absl::ZeroDuration());
  w.clock.JumpWall(-absl::Hours(12));
  CHECK(w.Pass(absl::Minutes(5)) == 0);
  CHECK(w.watch.ahead() == absl::ZeroDuration());
  // To what was right, which the node cannot know.
  w.clock.JumpWall(absl::Hours(12));
  CHECK(w.Pass(absl::Minutes(5)) == 1);
}

TEST_CASE("a clock that is corrected little by little is followed") {
  Watched w;
  for (int minute = 0; minute < 60; ++minute) {
    w.clock.JumpWall(absl::Seconds(30));
    CHECK(w.Pass(absl::Minutes(1)) == 0);
  }
  CHECK(w.watch.ahead() == absl::ZeroDuration());
}

}  // namespace
}  // namespace sluice::broker
