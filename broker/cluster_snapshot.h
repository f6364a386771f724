// A ClusterState as bytes, for a replica of group 0 that is behind the log start of the one that leads
// (docs/formats.md). Equal states at equal offsets have equal bytes, whichever node makes them.
//
// Threads: pure functions. Errors: DataLoss for bytes that are none of these, were damaged, or are of a later version.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "broker/cluster_state.h"
#include "common/types.h"

namespace sluice::broker {

inline constexpr uint32_t kClusterSnapshotMagic = 0x53434c53;  // "SLCS" as bytes
inline constexpr uint32_t kClusterSnapshotVersion = 1;
inline constexpr size_t kClusterSnapshotHeaderBytes = 24;

struct ClusterSnapshot {
  Offset applied;  ///< One past the last offset of group 0's log that is in the state.
  ClusterState state;
};
std::string EncodeClusterSnapshot(const ClusterState& state, Offset applied);
absl::StatusOr<ClusterSnapshot> DecodeClusterSnapshot(std::string_view bytes);

/// Which snapshot: what travels in the offer of one, and with each request for a piece of it.
struct SnapshotName {
  Offset applied;
  uint64_t size_bytes = 0;
  uint32_t crc32c = 0;  ///< Of the snapshot's bytes.
  bool operator==(const SnapshotName&) const = default;
};
SnapshotName NameOfSnapshot(Offset applied, std::string_view bytes);
std::string EncodeSnapshotName(const SnapshotName& name);
absl::StatusOr<SnapshotName> DecodeSnapshotName(std::string_view bytes);

}  // namespace sluice::broker
