// Who takes part in group 0, and as what: every registered node has a replica; 1, 3 or 5 of them vote (the largest odd
// number that there are nodes for), the rest learn. A voter whose node has been fenced for an hour gives its vote to
// one that lives. And where the leader cannot write, for its disk is full, one that can is to lead.
//
// Always holds: one member's part changes at a time, and the next step waits for the last one's commit; a learner gets
// a vote only once it has caught up, and not as a second or fourth voter unless another one could follow at once (an
// even number survives no more losses than the odd number below it); whoever leads keeps its vote. Leadership goes
// only to a voter that says that it can write, so where all disks are full it stays where it is.
// Threads: NextMembershipStep and Successor are pure; Group0Membership on the controller's executor.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "broker/controller.h"
#include "broker/node_registry.h"
#include "common/executor.h"
#include "common/log.h"
#include "replication/core/configuration.h"

namespace sluice::broker {

inline constexpr size_t kGroup0VotersMax = 5;
inline constexpr absl::Duration kReplaceVoterAfter = absl::Hours(1);

struct Group0Options {
  absl::Duration check_every = absl::Milliseconds(500);
  absl::Duration replace_voter_after = kReplaceVoterAfter;  ///< For so long its node was fenced.
};

struct Group0View {
  struct Node {
    VoterId id;  ///< As registered.
    std::string rack;
    bool fenced = false;
    absl::Duration fenced_for = absl::ZeroDuration();  ///< As far as the leader knows.
    bool caught_up = false;                            ///< Has the log, and was heard of lately; of members.
    bool renounced = false;       ///< Its replica leads no more, for damage in its log; of members.
    bool can_lead = false;        ///< As its last heartbeat says: it can write, and is not about to stop.
    int64_t disk_free_bytes = 0;  ///< The same.
  };
  VoterId leader;
  raft::Configuration members;
  std::vector<Node> nodes;  ///< All that are registered, by number.
  absl::Duration replace_voter_after = kReplaceVoterAfter;
};

/// The members after the next step; nullopt where there is none to be made now.
std::optional<raft::Configuration> NextMembershipStep(const Group0View& view);

/// Who is to lead instead of a leader that cannot write: of the voters that can lead the one with the most room.
std::optional<VoterId> Successor(const Group0View& view);

/// Carries the steps out while the controller leads here.
class Group0Membership final : public ControllerObserver {
 public:
  /// All borrowed.
  struct Seams {
    Executor& executor;
    Clock& clock;
    Controller& controller;
    const Logger& log;
    const NodeRegistry* registry = nullptr;     ///< What heartbeats say; null: leadership stays where it is.
    std::function<bool()> disk_full = nullptr;  ///< Of this node, beside what the controller knows. May be empty.
  };

  /// Observes the controller, which it outlives.
  explicit Group0Membership(Seams seams, Group0Options options = {});
  ~Group0Membership() override;
  void Start();
  void Stop();

  void OnLeadership(bool leads) override;

  /// At the leader: the voters whose disks are full, by what they say, where without them there is no majority;
  /// otherwise nobody.
  std::vector<NodeId> WithoutRoom() const;

 private:
  void CheckLater();
  void Check();
  Group0View View();
  bool IsFull() const;
  void HandOverIfFull();

  const Seams seams_;
  const Group0Options options_;
  Executor::TimerId timer_ = 0;
  bool stopped_ = true;
  bool changing_ = false;
  std::optional<absl::Duration> handed_over_at_;
  std::map<NodeId, absl::Duration> fenced_since_;  ///< Of the clock, as this leader saw it.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace sluice::broker
