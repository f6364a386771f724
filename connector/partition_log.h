// One partition of a topic, as a writer that must not repeat or lose a record sees it: appends that name the end they
// expect, and the tail, which tells after any failure what was written. The source and the state store stand on it;
// tests put an in-memory log with faults behind it.
//
// Always holds: an Append that fails with IsMismatch wrote nothing; one that fails with IsUnknown may have written, or
// may still write for as long as the log ends at `expected`. So a writer that re-reads the tail and appends at the end
// found there can never write beside its own lost request: one of the two is refused. Threads: one at a time. Calls
// block.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/record/codec.h"
#include "common/record/record.h"
#include "common/types.h"

namespace sluice::client {
class Client;
}

namespace sluice::connector {

class PartitionLog {
 public:
  struct End {
    /// What the next Append has to expect; counts control batches. All below it is committed: while the log holds more,
    /// which may be a lost request of ours, an Append fails with IsMismatch.
    Offset log_end;
    /// One past the last data record that can be read; log start and this are equal when there is none.
    Offset data_end;
    Offset log_start;
    /// Tells the topic from one that was deleted under the same name.
    std::string topic_id;
  };
  /// One batch, in order; views hold during the call. False ends the read.
  using Visitor = std::function<bool(absl::Span<const record::Record> batch, Offset next_offset)>;

  virtual ~PartitionLog() = default;
  /// "topic/partition", for messages.
  virtual const std::string& name() const = 0;
  /// Linearizable: sees every append acknowledged before the call.
  virtual absl::StatusOr<End> ReadEnd() = 0;
  /// Appends one batch if the log ends at `expected`; the end behind it. IsTooLarge: the same batch will never fit.
  virtual absl::StatusOr<Offset> Append(Offset expected, absl::Span<const record::Record> batch,
                                        record::Codec codec) = 0;
  /// All data batches that hold offsets in [from, to), in order; a batch may begin before `from`. OUT_OF_RANGE when
  /// `from` lies below the log start.
  virtual absl::Status Read(Offset from, Offset to, const Visitor& visit) = 0;
  /// Records below `before` go.
  virtual absl::Status DeleteBefore(Offset before) = 0;

  static bool IsMismatch(const absl::Status& status);
  static bool IsUnknown(const absl::Status& status);
  static bool IsTooLarge(const absl::Status& status);
};

/// Over a client, which must outlive it. The topic has to exist.
std::unique_ptr<PartitionLog> OpenPartitionLog(client::Client& client, const std::string& topic, PartitionId partition);

}  // namespace sluice::connector
