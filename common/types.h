// The strong types that every folder shares: ids and positions that must not be mixed up.
//
// Value types; safe to copy and compare from any thread.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <functional>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>

namespace sluice {

/// An integer that converts to no other id. `Tag` makes each use a type of its own.
template <class Tag, class Rep>
class StrongInt {
 public:
  using rep = Rep;
  constexpr StrongInt() = default;
  constexpr explicit StrongInt(Rep value) : value_(value) {}
  constexpr Rep value() const { return value_; }
  constexpr auto operator<=>(const StrongInt&) const = default;

  constexpr StrongInt operator+(Rep n) const { return StrongInt(static_cast<Rep>(value_ + n)); }
  constexpr StrongInt operator-(Rep n) const { return StrongInt(static_cast<Rep>(value_ - n)); }
  constexpr Rep operator-(StrongInt other) const { return static_cast<Rep>(value_ - other.value_); }
  constexpr StrongInt& operator+=(Rep n) {
    value_ = static_cast<Rep>(value_ + n);
    return *this;
  }
  constexpr StrongInt& operator++() {
    ++value_;
    return *this;
  }

  template <class H>
  friend H AbslHashValue(H h, StrongInt v) {
    return H::combine(std::move(h), v.value_);
  }
  friend std::ostream& operator<<(std::ostream& os, StrongInt v) { return os << +v.value_; }

 private:
  Rep value_{};
};

/// Position of a record in a partition's log. 0 is the first; -1 is "none" on the wire.
using Offset = StrongInt<struct OffsetTag, int64_t>;
/// Raft term of the leader that appended a batch; 31 bits, never negative in a stored batch.
using LeaderEpoch = StrongInt<struct LeaderEpochTag, int32_t>;
/// Index of a partition within its topic, from 0.
using PartitionId = StrongInt<struct PartitionIdTag, int32_t>;
/// A broker node's number, from 1; 0 is "none".
using NodeId = StrongInt<struct NodeIdTag, int32_t>;
/// Names one request within one stream, chosen by the client.
using CorrelationId = StrongInt<struct CorrelationIdTag, uint64_t>;

/// 128 random bits (RFC 9562 version 4 when made by us). The nil value means "none".
struct Uuid {
  std::array<uint8_t, 16> bytes{};

  /// Makes a version 4 UUID from 128 random bits.
  static Uuid FromRandom(uint64_t high, uint64_t low);
  /// Parses "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx" (either case); nullopt when it is not one.
  static std::optional<Uuid> Parse(std::string_view text);
  /// Copies 16 raw bytes; nullopt for another length.
  static std::optional<Uuid> FromBytes(std::string_view raw);

  bool IsNil() const { return *this == Uuid{}; }
  std::string ToString() const;
  std::string_view AsBytes() const { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

  auto operator<=>(const Uuid&) const = default;
  template <class H>
  friend H AbslHashValue(H h, const Uuid& u) {
    return H::combine(std::move(h), u.bytes);
  }
  friend std::ostream& operator<<(std::ostream& os, const Uuid& u) { return os << u.ToString(); }
};

/// A replica's name in Raft: a node together with the life of its disk, so that a wiped disk is another voter. The
/// default is "none".
struct VoterId {
  NodeId node;
  Uuid incarnation;

  bool IsNone() const { return *this == VoterId{}; }
  /// "<node>/<incarnation>"
  std::string ToString() const;
  auto operator<=>(const VoterId&) const = default;
  friend std::ostream& operator<<(std::ostream& os, const VoterId& v) { return os << v.ToString(); }
};

/// A topic's identity; a topic deleted and made again under the same name has another.
using TopicId = Uuid;

/// One partition of one topic, as storage and replication name it (never by the topic's name).
struct ReplicaId {
  TopicId topic;
  PartitionId partition;

  /// "<topic uuid>/<partition>", which is also the folder below `topics/`.
  std::string ToString() const;
  auto operator<=>(const ReplicaId&) const = default;
  template <class H>
  friend H AbslHashValue(H h, const ReplicaId& r) {
    return H::combine(std::move(h), r.topic, r.partition);
  }
  friend std::ostream& operator<<(std::ostream& os, const ReplicaId& r) { return os << r.ToString(); }
};

}  // namespace sluice
