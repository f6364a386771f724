// Records that can go nowhere else, in `<topic>.dlq`, each once, however often its writer tries again.
//
// A letter is the original record (key, value, headers), then `sluice.reason`, then `whence`: headers that name the
// letter among all of its writer. Each append compares the topic's end, and what is found in the topic at or after
// `from` is not written again. What the topic refuses as too large is cut, and says so:
//   sluice.value.bytes, sluice.value.sha256   of the whole value, sluice.value.kept: bytes of it that the letter has
//   sluice.key.bytes, sluice.headers.bytes    when these were dropped
//
// Threads: one at a time. Calls block.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/types.h"
#include "connector/partition_log.h"

namespace sluice::connector {

struct DeadLetter {
  int64_t timestamp_ms = 0;
  std::optional<std::string> key{};
  std::optional<std::string> value{};
  std::vector<std::pair<std::string, std::optional<std::string>>> headers{};
  std::string reason;
  std::vector<std::pair<std::string, std::string>> whence;
};

class DeadLetterQueue {
 public:
  /// Opens the topic; null when it is not there and `make` is false.
  using Open = std::function<absl::StatusOr<std::unique_ptr<PartitionLog>>(bool make)>;
  explicit DeadLetterQueue(Open open) : open_(std::move(open)) {}

  /// Where the next letter would go; 0 while the topic was not made yet.
  absl::StatusOr<Offset> End();
  /// Shows every record at or after `from`, of whatever writer; the end that it has read up to.
  absl::StatusOr<Offset> Visit(Offset from, absl::FunctionRef<void(const record::Record&)> visit);
  /// Each letter is durably in the topic once; where it now ends. All letters have the same names in `whence`. Many
  /// calls with one `from` read the topic once.
  absl::StatusOr<Offset> Append(Offset from, const std::vector<DeadLetter>& letters);

 private:
  absl::StatusOr<std::optional<PartitionLog::End>> ReadEnd(bool make);
  absl::Status AppendMissing(Offset from, const std::vector<DeadLetter>& letters, Offset* end);
  absl::Status AppendAll(absl::Span<const DeadLetter* const> letters, Offset* end);
  absl::Status AppendCut(const DeadLetter& letter, Offset* end);
  absl::Status AppendBatch(absl::Span<const DeadLetter* const> letters, Offset* end);

  const Open open_;
  std::unique_ptr<PartitionLog> log_;  // null: not opened yet
  // What Append knows of the topic: the names of the letters in [known_from_, known_to_).
  std::set<std::string> known_;
  Offset known_from_;
  Offset known_to_;
};

/// The dead letters of `topic` in a cluster. The topic is made with room for records that `topic` itself refuses.
DeadLetterQueue::Open DeadLettersOf(client::Client& client, const std::string& topic);

/// The last header of that name, empty when there is none: a letter's own headers stand behind those of the record.
std::string_view HeaderText(const record::Record& record, std::string_view name);

}  // namespace sluice::connector
