#include "connector/sink/dead_letters.h"

#include <algorithm>
#include <set>
#include <utility>

#include "client/error.h"
#include "common/record/record.h"
#include "common/status_macros.h"
#include "common/text.h"

namespace sluice::connector {

namespace {

constexpr size_t kBatchBytesMax = size_t{512} << 10;
constexpr int kAttemptsMax = 20;
constexpr absl::Duration kAppendTimeout = absl::Seconds(30);
constexpr PartitionId kPartition{0};

// Letters [begin, end) make one batch.
struct Part {
  size_t begin;
  size_t end;
};

std::vector<Part> Split(const std::vector<DeadLetter>& letters) {
  std::vector<Part> parts;
  size_t bytes = 0;
  for (size_t i = 0; i < letters.size(); ++i) {
    size_t size = letters[i].reason.size() + 512;
    size += letters[i].key.value_or("").size() + letters[i].value.value_or("").size();
    for (const auto& [name, value] : letters[i].headers) size += name.size() + value.value_or("").size() + 16;
    if (parts.empty() || bytes + size > kBatchBytesMax) {
      parts.push_back({i, i});
      bytes = 0;
    }
    parts.back().end = i + 1;
    bytes += size;
  }
  return parts;
}

std::optional<std::string_view> View(const std::optional<std::string>& text) {
  return text.has_value() ? std::optional<std::string_view>(*text) : std::nullopt;
}

}  // namespace

DeadLetterQueue::DeadLetterQueue(client::Client* client, std::string sink, std::string topic)
    : client_(client),
      sink_(std::move(sink)),
      source_topic_(std::move(topic)),
      topic_(source_topic_ + ".dlq"),
      admin_(client->NewAdmin()),
      appender_(client->NewAppender()) {}

DeadLetterQueue::~DeadLetterQueue() = default;

absl::StatusOr<Offset> DeadLetterQueue::End() {
  auto answer = admin_->ListOffset({.topic = topic_, .partition = kPartition});
  if (absl::IsNotFound(answer.status())) return Offset(0);
  if (!answer.ok()) return answer.status();
  topic_made_ = true;
  return answer->log_end;
}

absl::Status DeadLetterQueue::EnsureTopic() {
  if (topic_made_) return absl::OkStatus();
  SLUICE_ASSIGN_OR_RETURN(const client::TopicDescription source, admin_->DescribeTopic(source_topic_));
  client::TopicSpec spec{.name = topic_, .partitions = 1, .replicas = source.topic.replicas, .config = {}};
  // Headers are added to each letter: a record that filled the source's limit must still fit here.
  if (const auto limit = source.topic.config.find("max.message.bytes"); limit != source.topic.config.end()) {
    spec.config["max.message.bytes"] = std::to_string(std::stoll(limit->second) + (1 << 16));
  }
  auto made = admin_->CreateTopic(spec);
  if (!made.ok() && !absl::IsAlreadyExists(made.status())) return made.status();
  topic_made_ = true;
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> DeadLetterQueue::FindParts(PartitionId partition, Offset from, Offset end,
                                                                    const std::vector<DeadLetter>& letters) {
  std::set<std::string> offsets;
  for (const DeadLetter& letter : letters) offsets.insert(std::to_string(letter.offset.value()));
  std::vector<std::string> found;
  const client::TopicPartition source{topic_, kPartition};
  SLUICE_ASSIGN_OR_RETURN(
      const client::OffsetAnswer earliest,
      admin_->ListOffset({.topic = topic_, .partition = kPartition, .kind = client::OffsetQuery::Kind::kEarliest}));
  from = std::max(from, earliest.offset.value_or(from));
  if (from >= end) return found;
  auto consumer = client_->NewConsumer();
  consumer->Assign(source, from);
  const std::string wanted_partition = std::to_string(partition.value());
  while (consumer->Position(source).value_or(end) < end) {
    SLUICE_ASSIGN_OR_RETURN(const auto records, consumer->Poll(absl::Seconds(30)));
    for (const client::ConsumedRecord& consumed : records) {
      std::string_view sink, in_topic, in_partition, offset;
      for (const record::Header& header : consumed.record.headers) {
        if (header.key == "sluice.sink") sink = header.value.value_or("");
        if (header.key == "sluice.topic") in_topic = header.value.value_or("");
        if (header.key == "sluice.partition") in_partition = header.value.value_or("");
        if (header.key == "sluice.offset") offset = header.value.value_or("");
      }
      if (sink != sink_ || in_topic != source_topic_ || in_partition != wanted_partition) continue;
      if (offsets.count(std::string(offset)) > 0) found.emplace_back(offset);
    }
    // Control batches may be the last thing before `end`: nothing more comes, but the position has passed them.
    if (records.empty() && consumer->HighWatermark(source).value_or(Offset(0)) >= end &&
        consumer->Position(source).value_or(end) < end) {
      return absl::UnavailableError(Cat("topic ", topic_, ": reading dead letters made no progress"));
    }
  }
  return found;
}

absl::Status DeadLetterQueue::Append(PartitionId partition, Offset from, const std::vector<DeadLetter>& letters) {
  if (letters.empty()) return absl::OkStatus();
  SLUICE_RETURN_IF_ERROR(EnsureTopic());
  const std::vector<Part> parts = Split(letters);
  const std::string in_partition = std::to_string(partition.value());
  absl::Status last;
  for (int attempt = 0; attempt < kAttemptsMax; ++attempt) {
    SLUICE_ASSIGN_OR_RETURN(Offset end, End());
    SLUICE_ASSIGN_OR_RETURN(const auto found_list, FindParts(partition, from, end, letters));
    const std::set<std::string> found(found_list.begin(), found_list.end());
    bool again = false;
    for (const Part& part : parts) {
      // A batch is appended whole or not at all, so its first letter stands for all of them.
      if (found.count(std::to_string(letters[part.begin].offset.value())) > 0) continue;
      record::BatchBuilder builder;
      for (size_t i = part.begin; i < part.end; ++i) {
        const DeadLetter& letter = letters[i];
        const std::string offset = std::to_string(letter.offset.value());
        std::vector<record::Header> headers;
        for (const auto& [name, value] : letter.headers) headers.push_back({name, View(value)});
        headers.push_back({"sluice.reason", letter.reason});
        headers.push_back({"sluice.sink", sink_});
        headers.push_back({"sluice.topic", source_topic_});
        headers.push_back({"sluice.partition", in_partition});
        headers.push_back({"sluice.offset", offset});
        SLUICE_RETURN_IF_ERROR(builder.Append(letter.timestamp_ms, View(letter.key), View(letter.value), headers));
      }
      SLUICE_ASSIGN_OR_RETURN(record::PendingBatch batch, builder.Build(record::Codec::kZstd));
      auto appended = appender_->AppendBatch(
          {.topic = topic_, .partition = kPartition, .batch = std::move(batch).Freeze(), .expected_base_offset = end},
          kAppendTimeout);
      if (!appended.ok()) {
        last = appended.status();
        const bool moved = client::HasReason(last, client::Reason::kExpectedOffsetMismatch);
        if (!moved && !client::IsOutcomeUnknown(last)) return last;
        again = true;  // someone else wrote, or nobody knows: look again
        break;
      }
      end = appended->next_offset;
    }
    if (!again) return absl::OkStatus();
  }
  return absl::Status(last.code(), Cat("topic ", topic_, ": dead letters of ", source_topic_, "/", in_partition,
                                       " not written after ", kAttemptsMax, " attempts: ", last.message()));
}

}  // namespace sluice::connector
