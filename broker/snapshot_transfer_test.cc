// Answers that come when nobody waits for them any more.
#include "broker/snapshot_transfer.h"

#include <catch2/catch.hpp>

#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "tests/simulation/sim_executor.h"

namespace sluice::broker {
namespace {

/// Calls that a test answers when it likes.
struct HeldCalls final : PeerCalls {
  struct Held {
    SnapshotPieceRequest asked;
    PeerAnswered done;
  };

  void Call(PeerTarget, uint32_t, std::string request, absl::Duration, PeerAnswered done) override {
    held.push_back({DecodeSnapshotPieceRequest(request).value(), std::move(done)});
  }
  void Serve(PeerCallHandler) override {}

  std::deque<Held> held;
};

struct Rig {
  Rig() {
    ClusterState state;
    TopicRecord topic{.id = Uuid::FromRandom(1, 1), .name = "t", .partitions = 1, .replicas = 1};
    topic.assignments = {{{.node = NodeId(1), .incarnation = Uuid{}}}};
    state.Apply(TopicCreated{topic}, Offset(1));
    name = giver.Offer(state, Offset(2), Offset(1));
    REQUIRE(name.size_bytes > 3 * kPieceBytes);
  }
  /// The calls that are made meanwhile wait.
  void Fetch() {
    answers.clear();
    taker.Fetch(NodeId(1), name,
                [this](absl::StatusOr<ClusterSnapshot> answer) { answers.push_back(answer.status()); });
  }
  void Run() { scheduler.RunFor(absl::Milliseconds(10)); }
  HeldCalls::Held Take() {
    REQUIRE_FALSE(calls.held.empty());
    HeldCalls::Held first = std::move(calls.held.front());
    calls.held.pop_front();
    return first;
  }
  void Answer(HeldCalls::Held call) {
    call.done(giver.Answer(call.asked));
    Run();
  }

  static constexpr size_t kPieceBytes = 16;
  simulation::SimScheduler scheduler{1};
  simulation::SimExecutor executor{scheduler};
  HeldCalls calls;
  SnapshotTransfer giver{{.executor = executor}};
  SnapshotTransfer taker{{.executor = executor, .calls = &calls, .piece_bytes = kPieceBytes}};
  SnapshotName name;
  std::vector<absl::Status> answers;
};

TEST_CASE("a fetch that is given up before it has asked anything asks nothing, and ends") {
  Rig rig;
  rig.Fetch();
  rig.taker.GiveUp(absl::AbortedError("its giver is gone"));
  rig.Run();
  CHECK(rig.calls.held.empty());
  REQUIRE(rig.answers.size() == 1);
  CHECK(absl::IsAborted(rig.answers[0]));
  CHECK_FALSE(rig.taker.fetching_from().has_value());
}

TEST_CASE("a piece that was asked for by a fetch that was given up is not taken for one of the next fetch") {
  const bool arrives_first = GENERATE(false, true);
  CAPTURE(arrives_first);
  Rig rig;
  rig.Fetch();
  rig.Run();
  rig.Answer(rig.Take());
  HeldCalls::Held late = rig.Take();
  CHECK(late.asked.position == Rig::kPieceBytes);
  rig.taker.GiveUp(absl::AbortedError("its giver leads no more"));
  rig.Run();
  REQUIRE(rig.answers.size() == 1);
  rig.Fetch();
  if (arrives_first) {
    rig.Answer(std::move(late));  // before anything is asked anew
    CHECK(rig.calls.held.size() == 1);
    CHECK(rig.calls.held.front().asked.position == Rig::kPieceBytes);
  } else {
    rig.Run();
    HeldCalls::Held now = rig.Take();
    rig.Answer(std::move(late));
    CHECK(rig.calls.held.empty());
    rig.Answer(std::move(now));
  }
  while (!rig.calls.held.empty()) rig.Answer(rig.Take());
  REQUIRE(rig.answers.size() == 1);
  CHECK(rig.answers[0] == absl::OkStatus());
}

}  // namespace
}  // namespace sluice::broker
