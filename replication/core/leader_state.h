// What a replica keeps only while it leads. Internal to the core.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "common/record/batch.h"
#include "common/types.h"
#include "replication/core/message.h"

namespace sluice::raft {

/// A queue that takes no memory while it is empty: thousands of idle groups have several of these each.
template <class T>
class Fifo {
 public:
  bool empty() const { return head_ == items_.size(); }
  size_t size() const { return items_.size() - head_; }
  const T& front() const { return items_[head_]; }
  const T& back() const { return items_.back(); }
  auto begin() const { return items_.begin() + static_cast<std::ptrdiff_t>(head_); }
  auto end() const { return items_.end(); }
  size_t capacity_bytes() const { return items_.capacity() * sizeof(T); }

  void push_back(T item) { items_.push_back(std::move(item)); }
  void pop_front() {
    items_[head_++] = T();
    if (empty()) return clear();
    if (head_ < items_.size() / 2) return;
    items_.erase(items_.begin(), items_.begin() + static_cast<std::ptrdiff_t>(head_));
    head_ = 0;
  }
  void clear() {
    // A busy group fills it again at once, so a little memory stays; an idle one soon lets go of it (Release).
    items_.clear();
    head_ = 0;
  }
  void Release() {
    if (empty()) std::vector<T>().swap(items_);
  }

 private:
  std::vector<T> items_;
  size_t head_ = 0;
};

/// The leader's recent batches, those that some follower still lacks. Always holds: they tile, and their bytes stay
/// within the bound (the newest one is kept however large it is).
class Window {
 public:
  void Push(record::Batch batch, int64_t bytes_max) {
    bytes_ += static_cast<int64_t>(batch.size_bytes());
    batches_.push_back(std::move(batch));
    while (bytes_ > bytes_max && batches_.size() > 1) Pop();
  }
  /// Lets go of the batches that end at or before `end`.
  void DropBefore(Offset end) {
    while (!batches_.empty() && batches_.front().next_offset() <= end) Pop();
  }
  /// Batches from `from` on, the start of one, up to `bytes_max` but at least one; none when it does not hold that one.
  std::vector<record::Batch> From(Offset from, int64_t bytes_max) const {
    auto at = std::lower_bound(batches_.begin(), batches_.end(), from,
                               [](const record::Batch& b, Offset o) { return b.base_offset() < o; });
    std::vector<record::Batch> found;
    if (at == batches_.end() || at->base_offset() != from) return found;
    int64_t bytes = 0;
    for (; at != batches_.end(); ++at) {
      bytes += static_cast<int64_t>(at->size_bytes());
      if (!found.empty() && bytes > bytes_max) break;
      found.push_back(*at);
    }
    return found;
  }
  bool empty() const { return batches_.empty(); }
  int64_t bytes() const { return bytes_; }
  size_t capacity_bytes() const { return batches_.capacity_bytes(); }
  void Release() { batches_.Release(); }

 private:
  void Pop() {
    bytes_ -= static_cast<int64_t>(batches_.front().size_bytes());
    batches_.pop_front();
  }

  Fifo<record::Batch> batches_;
  int64_t bytes_ = 0;
};

/// What the leader knows of one follower.
///
/// Always holds: match <= next <= the leader's log end, but for a follower that has been told to begin anew. No batch
/// of the leader's log spans next: nothing could be sent from there. match is what the follower said in this term, and
/// goes back only when its doubt begins, or ends otherwise than by this leader, or when its disk turns out to have less
/// than it said.
struct Progress {
  enum class State : uint8_t {
    kProbe,      ///< Where its log agrees is not known: one message at a time.
    kReplicate,  ///< It agrees up to match; batches are sent ahead of its answers.
    kSnapshot,   ///< Its log cannot be continued; nothing is sent until it has begun anew.
  };
  struct InFlight {
    Offset end;
    int64_t bytes = 0;
  };

  VoterId id;
  bool voter = false;
  State state = State::kProbe;
  bool paused = false;  ///< Probe: a message is out.
  bool ask = false;     ///< Replicate: ask where it stands, though there may be nothing to send.
  Offset match;
  Offset next;
  Offset sent_committed;   ///< Told it.
  Offset acked_committed;  ///< It told us.
  int silent_ticks = 0;    ///< Since it was heard of.
  uint64_t read_acked = 0;
  uint64_t log_read_token = 0;  ///< Batches for it are being read.
  Fifo<InFlight> in_flight;
  int64_t in_flight_bytes = 0;

  bool cannot_lead = false;  ///< It has renounced, as its last answer says.
  uint64_t doubt = kNoDoubt;
  Offset doubt_since;                   ///< Where our log ended when we heard of this doubt.
  std::optional<Offset> confirmed_end;  ///< How far its log must reach; set once nobody can lead by its vote.

  bool snapshot_asked = false;              ///< The driver has been told.
  std::optional<InstallSnapshot> snapshot;  ///< Sent; repeated until it is answered.
  int snapshot_ticks = 0;

  void BecomeProbe(Offset from) {
    state = State::kProbe;
    paused = ask = false;
    next = std::max(from, match);
    Forget();
  }
  void BecomeReplicate() {
    state = State::kReplicate;
    paused = ask = false;
    next = match;
    Forget();
  }
  void BecomeSnapshot() {
    state = State::kSnapshot;
    paused = ask = false;
    snapshot_ticks = 0;
    snapshot_asked = false;
    Forget();
  }
  void Sent(Offset end, int64_t bytes) {
    next = end;
    in_flight.push_back({end, bytes});
    in_flight_bytes += bytes;
  }
  void Acked(Offset end) {
    while (!in_flight.empty() && in_flight.front().end <= end) {
      in_flight_bytes -= in_flight.front().bytes;
      in_flight.pop_front();
    }
  }

 private:
  void Forget() {
    in_flight.clear();
    in_flight_bytes = 0;
    log_read_token = 0;
    snapshot.reset();
  }
};

struct LeaderState {
  struct PendingRead {
    uint64_t context = 0;
    uint64_t seq = 0;  ///< The round that confirms it; 0: none yet.
    Offset index;
  };

  /// Every member but this replica, in the configuration's order. Then, where too many are in doubt, the voters that an
  /// uncommitted change takes out.
  std::vector<Progress> peers;
  Window window;
  Offset term_start;  ///< Where this term's first batch begins.
  int heartbeat_elapsed = 0;

  std::vector<PendingRead> reads;
  uint64_t read_seq = 0;        ///< The last round begun.
  uint64_t read_confirmed = 0;  ///< The last round that a quorum answered.

  VoterId transfer_to;
  int transfer_elapsed = 0;
  bool timeout_now_sent = false;

  Progress* Find(const VoterId& id) {
    const auto at = std::find_if(peers.begin(), peers.end(), [&](const Progress& p) { return p.id == id; });
    return at == peers.end() ? nullptr : &*at;
  }
};

}  // namespace sluice::raft
