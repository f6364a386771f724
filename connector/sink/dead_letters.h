// Appends a chunk's dead letters to `<topic>.dlq`, exactly once, however often the chunk is carried out again.
//
// A letter is the original record (key, value, headers) with headers that say why and whence: sluice.reason,
// sluice.sink, sluice.topic, sluice.partition, sluice.offset, and sluice.part ("k" of this chunk's batches, from 1). A
// chunk's letters go in order into as few batches as fit; each append compares the log's end, and what is found in the
// topic at or after the plan's `dead_letters_from` is not written again.
//
// Threads: one at a time. Calls block.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/client.h"
#include "common/types.h"

namespace sluice::connector {

struct DeadLetter {
  Offset offset;
  int64_t timestamp_ms = 0;
  std::optional<std::string> key{};
  std::optional<std::string> value{};
  std::vector<std::pair<std::string, std::optional<std::string>>> headers;
  std::string reason;
};

class DeadLetterQueue {
 public:
  /// `sink` names the writer: "<pipeline>/<sink>". The client must outlive this.
  DeadLetterQueue(client::Client* client, std::string sink, std::string topic);
  ~DeadLetterQueue();

  /// Where the next letter would go; 0 while the topic was not made yet.
  absl::StatusOr<Offset> End();
  /// Letters of one chunk of `partition`, in offset order. OK when every one is durably in the topic once.
  absl::Status Append(PartitionId partition, Offset from, const std::vector<DeadLetter>& letters);

 private:
  absl::Status EnsureTopic();
  absl::StatusOr<std::vector<std::string>> FindParts(PartitionId partition, Offset from, Offset end,
                                                     const std::vector<DeadLetter>& letters);

  client::Client* const client_;
  const std::string sink_;
  const std::string source_topic_;
  const std::string topic_;
  std::unique_ptr<client::Admin> admin_;
  std::unique_ptr<client::Appender> appender_;
  bool topic_made_ = false;
};

}  // namespace sluice::connector
