// StateMachine: what a group's log feeds, where what stands before the log start is kept as a state: group 0's
// controller. Such a group moves each replica's log start on its own, as far as that replica has its state saved, and a
// replica that is behind the leader's log start gets the state from another one before its log begins anew.
//
// Threads: the group's home executor; callbacks too, never inside the call.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/bytes.h"
#include "common/types.h"
#include "replication/replicated_log.h"

namespace sluice::replication {

class StateMachine {
 public:
  struct Offer {
    Offset base_end;  ///< What the state has applied; at or above the log start.
    Bytes detail;     ///< For InstallSnapshot at the follower; it travels in one message, so it is small.
  };

  virtual ~StateMachine() = default;
  /// At the leader: where a follower that is behind the log start is to begin.
  virtual absl::StatusOr<Offer> OfferSnapshot() = 0;
  /// At the follower: brings the state to `base_end`, durably; only then the log that is there is thrown away. Node
  /// `from` has offered it. One at a time. After an error nothing has changed, and it is offered again.
  virtual void InstallSnapshot(NodeId from, Offset base_end, Bytes detail, Callback<absl::Status> done) = 0;
};

}  // namespace sluice::replication
