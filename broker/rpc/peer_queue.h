// PeerQueue: what waits to be sent to one peer, bounded in bytes, and joined into messages of about 1 MiB.
//
// Always holds: parts of one group leave in the order pushed. Parts without batches (votes, answers, heartbeats of
// groups) leave before those with batches, unless their own group has batches waiting; and as long as anything with
// batches waits, they take at most half of a message, so that neither starves the other.
// Threads: one at a time.
#pragma once

#include <cstddef>
#include <deque>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "broker/rpc/peer_message.h"

namespace sluice::broker::rpc {

/// What a message holds when many parts wait, unless its first one is larger.
inline constexpr size_t kPeerJoinBytes = size_t{1} << 20;

class PeerQueue {
 public:
  /// Parts without batches may pass the bound by a little, so that a peer that is slow to take batches still hears who
  /// is a candidate.
  explicit PeerQueue(size_t bytes_max) : bytes_max_(bytes_max) {}

  /// False: over the bound, and nothing is kept.
  bool Push(const ReplicaId& group, PeerPart part);
  /// The parts of the next message; none when nothing waits.
  std::vector<PeerPart> Take();
  void Clear();

  bool empty() const { return light_.empty() && heavy_.empty(); }
  /// With what a part costs beside its bytes.
  size_t bytes() const { return bytes_; }

 private:
  struct Waiting {
    ReplicaId group;
    PeerPart part;
  };
  bool TakeFrom(std::deque<Waiting>& lane, size_t bytes_max, size_t envelope_max, size_t* bytes, size_t* envelope,
                std::vector<PeerPart>* parts);

  const size_t bytes_max_;
  size_t bytes_ = 0;
  std::deque<Waiting> light_;
  std::deque<Waiting> heavy_;
  absl::flat_hash_map<ReplicaId, int> in_heavy_;  // how many parts of a group
};

}  // namespace sluice::broker::rpc
