// Errors of the broker: how they are made, and what the statuses of the folders below mean to a client.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "broker/api.h"
#include "replication/replicated_log.h"

namespace sluice::broker {

/// Whether the same request may succeed later, with nothing changed by the caller. An unknown outcome is not: without
/// idempotent producers, sending again could write twice.
bool IsRetriable(Reason reason);

/// An error about one partition (or, with an empty topic, about the call).
Error MakeError(Reason reason, std::string message, std::string_view topic = {}, PartitionId partition = {});

/// What a status of ReplicatedLog::Propose means. Anything outside its contract is an unknown outcome.
Error ProposeError(const absl::Status& status, const replication::ReplicatedLog& log, std::string_view topic,
                   PartitionId partition);
/// What a status of the reading calls means.
Error ReadError(const absl::Status& status, const replication::LogBounds& bounds, std::string_view topic,
                PartitionId partition);
/// ResourceExhausted is a full disk when the file system said so, otherwise memory or the journal's queue.
Reason ExhaustedReason(const absl::Status& status);

}  // namespace sluice::broker
