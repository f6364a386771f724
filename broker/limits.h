// The bounds that are not configured, all in one place; those that are stand in NodeConfig and reach their users by
// BrokerOptions and rpc::ServerOptions. Together they bound what clients can make the node hold:
//   appends   limits.inflight_bytes: requests read and not answered (rpc), and twice that in the broker
//   reads     limits.read_bytes: bytes fetched and not written to their client (ReadQuota), apart from the appends', so
//             that neither starves the other
//   calls     limits.streams, of limits.connections connections, each with the bounds below
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/time/time.h"
#include "common/topic_setting.h"

namespace sluice::broker {

// ---- Requests

/// A request of anything but produce may not be larger: its repeated fields take far more memory than wire.
inline constexpr size_t kSmallRequestBytesMax = 1 << 20;
/// Partitions or items that one request names; more are refused as a whole. An item takes two bytes on the wire and a
/// hundred in memory.
inline constexpr size_t kItemsMax = 10'000;
/// Records of one produce request that sends them structured.
inline constexpr size_t kStructuredRecordsMax = 65'536;

/// Of one batch: what a message between nodes may carry, so that every batch that is taken can be replicated.
inline constexpr int64_t kBatchBytesMax = kTopicMessageBytesMax;

// ---- Produce streams

/// A session that names more partitions than this gets kQuota for the rest.
inline constexpr size_t kSessionLanesMax = 10'000;
/// Requests of one stream that are not answered yet; a client that sends more is read no further for now.
inline constexpr int kUnansweredMax = 4096;
/// Partitions of one stream that stand refused until a reset. More is no client but a flood.
inline constexpr size_t kBrokenMax = 10'000;

// ---- Reads

/// What one fetch or one message of a consume stream may carry, unless a single batch is larger.
inline constexpr int64_t kFetchBytesMax = 32 << 20;
inline constexpr int64_t kFetchBytesDefault = 1 << 20;
/// How long one fetch may wait for records.
inline constexpr absl::Duration kFetchWaitMax = absl::Minutes(5);
/// Partitions that one consume stream reads.
inline constexpr size_t kAssignedMax = 10'000;
/// Answers of one consume stream that have not left: enough that a fast client never waits for the disk.
inline constexpr size_t kAnswersQueuedMax = 2;
/// One read asks ReadQuota for no more than this share of what is free, so that many find something there.
inline constexpr int64_t kReadShare = 4;
/// While others wait for memory, how often who holds it is looked at.
inline constexpr absl::Duration kReadReclaimEvery = absl::Seconds(1);
/// Structured answers decode as much as they may carry, and this much however short memory is.
inline constexpr int64_t kStructuredBytesMin = 64 << 10;
/// What one batch may inflate to where its records are read one by one.
inline constexpr size_t kDecompressedBytesMax = size_t{64} << 20;

// ---- The controller

/// Of one topic, as stored: half of what the metadata store and a call between nodes can carry.
inline constexpr size_t kTopicBytesMax = size_t{2} << 20;
/// Of a node's address, rack or version, or the cluster's name.
inline constexpr size_t kNodeTextBytesMax = 1024;
/// Of keys and values of a topic's settings together.
inline constexpr size_t kTopicConfigBytesMax = size_t{16} << 10;
/// Read from group 0's log at a time.
inline constexpr int64_t kGroup0ReadBytes = int64_t{1} << 20;
/// Of a snapshot of its state; a larger one is refused before memory is taken for it.
inline constexpr uint64_t kClusterSnapshotBytesMax = uint64_t{256} << 20;
/// Of a snapshot, asked for at a time: few enough for a slow link in the time that a piece has.
inline constexpr size_t kSnapshotPieceBytes = size_t{64} << 10;
/// Partitions whose state one request asks another node for: the answer must fit into one message.
inline constexpr size_t kStatusesMax = 10'000;

}  // namespace sluice::broker
