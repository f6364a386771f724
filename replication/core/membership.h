// Reads a configuration out of a batch. Internal to the core.
#pragma once

#include <optional>

#include "absl/status/statusor.h"
#include "common/record/batch.h"
#include "replication/core/configuration.h"

namespace sluice::raft {

/// The configuration that a membership control batch carries, nullopt of any other batch. DataLoss for a control batch
/// that cannot be read.
absl::StatusOr<std::optional<Configuration>> MembershipIn(const record::Batch& batch);

}  // namespace sluice::raft
