// SnapshotTransfer: snapshots of the controller's state between nodes, in pieces that are asked for one after the other
// (PeerCalls). The one that offers a snapshot keeps it for as long as somebody asks; who takes one keeps what has
// arrived when a piece does not come, and goes on there when the same snapshot is offered again within 30 s, by
// whichever node. A process that ends forgets what it has received.
//
// Threads: the controller's executor; callbacks too, never inside the call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "broker/api.h"
#include "broker/cluster_calls.h"
#include "broker/cluster_snapshot.h"
#include "broker/limits.h"
#include "broker/peer_calls.h"
#include "common/executor.h"

namespace sluice::broker {

class SnapshotTransfer {
 public:
  /// All borrowed.
  struct Seams {
    Executor& executor;
    PeerCalls* calls = nullptr;                ///< Null: a node without peers.
    size_t piece_bytes = kSnapshotPieceBytes;  ///< Asked for at a time; less than kPeerCallBytesMax.
  };

  explicit SnapshotTransfer(Seams seams) : seams_(seams) {}
  ~SnapshotTransfer();

  // ---- Giving

  /// The snapshot that is being given already, where it is of `log_start` or later; otherwise one of this state.
  SnapshotName Offer(const ClusterState& state, Offset applied, Offset log_start);
  /// A piece of what was offered; NotFound for another snapshot, OutOfRange beyond its end.
  absl::StatusOr<std::string> Answer(const SnapshotPieceRequest& request);

  // ---- Taking

  /// Fetches the snapshot from `from`, one at a time. Unavailable where pieces do not come; DataLoss where what has
  /// come is not what was named, or cannot be read; otherwise what the other node answers.
  void Fetch(NodeId from, const SnapshotName& name, Callback<absl::StatusOr<ClusterSnapshot>> done);
  /// From whom a snapshot is being fetched now.
  std::optional<NodeId> fetching_from() const;
  /// Ends the fetch, where there is one, with this error; what has come is kept.
  void GiveUp(absl::Status why);
  /// Ends what is under way, unanswered.
  void Stop();

 private:
  struct Given {
    SnapshotName name;
    std::string bytes;
  };
  struct Taken {
    NodeId from;
    SnapshotName name;
    std::string bytes;                               ///< As far as they have come.
    int failures = 0;                                ///< In a row.
    Callback<absl::StatusOr<ClusterSnapshot>> done;  ///< Null: not under way; it may go on.
  };

  void KeepGiven();
  void AskNext();
  void OnPiece(uint64_t call, absl::StatusOr<std::string> piece);
  void Finish(absl::StatusOr<ClusterSnapshot> result);

  const Seams seams_;
  std::optional<Given> given_;
  Executor::TimerId forget_timer_ = 0;
  std::optional<Taken> taken_;
  uint64_t calls_made_ = 0;  ///< Answers to any but the last one are overtaken.
  Executor::TimerId retry_timer_ = 0;
  Executor::TimerId drop_timer_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace sluice::broker
