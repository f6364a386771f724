#include "connector/topic_state_store.h"

#include <algorithm>
#include <charconv>
#include <utility>
#include <vector>

#include "common/status_macros.h"
#include "common/text.h"
#include "connector/http/retry.h"

namespace sluice::connector {
namespace {

constexpr std::string_view kWriteHeader = "write";
constexpr std::string_view kVersionHeader = "version";
constexpr absl::Duration kPutTimeMax = absl::Minutes(1);
constexpr int kAtOnceMax = 5;
constexpr http::RetryPolicy kBackoff{.backoff_first = absl::Milliseconds(100), .backoff_max = absl::Seconds(5)};
// When the log is worth shortening, and the largest batch that does it.
constexpr int64_t kLogRecordsMin = 1000;
constexpr int64_t kLogRecordsPerKey = 10;
constexpr size_t kSnapshotBytesMax = size_t{768} << 10;

bool MayPass(const absl::Status& status) {
  return PartitionLog::IsUnknown(status) || absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) ||
         absl::IsResourceExhausted(status);
}

}  // namespace

TopicStateStore::TopicStateStore(std::unique_ptr<PartitionLog> log, Clock& clock, Random& random, StopSignal& stop)
    : log_(std::move(log)), clock_(clock), random_(random), stop_(stop) {}

absl::Status TopicStateStore::CatchUp() {
  SLUICE_ASSIGN_OR_RETURN(const PartitionLog::End end, log_->ReadEnd());
  // What was deleted below us was repeated above: a snapshot that we are about to read.
  const Offset from = std::max(read_, end.log_start);
  SLUICE_RETURN_IF_ERROR(log_->Read(from, end.data_end, [&](absl::Span<const record::Record> batch, Offset next) {
    for (const record::Record& record : batch) {
      if (record.offset >= from) Apply(record);
    }
    read_ = next;
    return true;
  }));
  read_ = std::max(read_, end.data_end);
  log_end_ = end.log_end;
  return absl::OkStatus();
}

void TopicStateStore::Apply(const record::Record& record) {
  if (!record.key) return;
  Entry entry{.value = std::string(record.value.value_or("")), .version = record.offset.value(), .write = {}};
  for (const record::Header& header : record.headers) {
    if (!header.value) continue;
    if (header.key == kWriteHeader) entry.write = std::string(*header.value);
    if (header.key == kVersionHeader) {
      std::from_chars(header.value->data(), header.value->data() + header.value->size(), entry.version);
    }
  }
  ++records_in_log_;
  entries_.insert_or_assign(std::string(*record.key), std::move(entry));
}

absl::StatusOr<StateEntry> TopicStateStore::Get(std::string_view key) {
  const std::lock_guard lock(mutex_);
  SLUICE_RETURN_IF_ERROR(CatchUp());
  const auto found = entries_.find(key);
  if (found == entries_.end()) return StateEntry{};
  return StateEntry{.value = found->second.value, .version = found->second.version};
}

absl::Status TopicStateStore::AppendOne(std::string_view key, std::string_view value, std::string_view write) {
  const record::Header headers[] = {{.key = kWriteHeader, .value = write}};
  record::Record record;
  record.timestamp_ms = absl::ToUnixMillis(clock_.Wall());
  record.key = key;
  record.value = value;
  record.headers.assign(std::begin(headers), std::end(headers));
  SLUICE_ASSIGN_OR_RETURN(const Offset next, log_->Append(log_end_, {&record, 1}, record::Codec::kNone));
  record.offset = log_end_;
  Apply(record);
  read_ = log_end_ = next;
  return absl::OkStatus();
}

absl::StatusOr<int64_t> TopicStateStore::Put(std::string_view key, std::string_view value, int64_t version) {
  const std::lock_guard lock(mutex_);
  const std::string write = Cat(Hex{random_.Next(), 16}, Hex{random_.Next(), 16});
  const absl::Duration until = clock_.Monotonic() + kPutTimeMax;
  bool read = false;  // whether entries_ is as of after the last doubt
  for (int retry = 0;; ++retry) {
    absl::Status status = read ? absl::OkStatus() : CatchUp();
    if (status.ok()) {
      read = true;
      const auto found = entries_.find(key);
      if (found != entries_.end() && found->second.write == write) return found->second.version;
      const int64_t now = found == entries_.end() ? -1 : found->second.version;
      if (now != version) {
        return absl::AbortedError(Cat(kStateTopic, ": '", key, "' was changed by another connector (version ", now,
                                      ", expected ", version, ")"));
      }
      status = AppendOne(key, value, write);
      if (status.ok()) {
        const int64_t written = entries_.find(key)->second.version;
        CompactIfLong();
        return written;
      }
      read = false;
      // Others write other keys: read on, try again at once; but what they wrote may take a while to be committed.
      if (PartitionLog::IsMismatch(status) && retry < kAtOnceMax) continue;
    }
    const bool may_pass = MayPass(status) || PartitionLog::IsMismatch(status);
    if (!may_pass || clock_.Monotonic() > until) return status;
    if (!stop_.Sleep(http::Backoff(kBackoff, retry, random_))) return absl::CancelledError("stopped");
  }
}

/// Best effort: whoever writes next tries again.
void TopicStateStore::CompactIfLong() {
  if (records_in_log_ < kLogRecordsMin || records_in_log_ < kLogRecordsPerKey * static_cast<int64_t>(entries_.size()))
    return;
  std::vector<std::string> versions;
  versions.reserve(entries_.size());
  std::vector<record::Record> batch;
  size_t bytes = 0;
  for (const auto& [key, entry] : entries_) {
    record::Record record;
    record.timestamp_ms = absl::ToUnixMillis(clock_.Wall());
    record.key = key;
    record.value = entry.value;
    versions.push_back(std::to_string(entry.version));
    record.headers = {{.key = kWriteHeader, .value = entry.write}, {.key = kVersionHeader, .value = versions.back()}};
    bytes += key.size() + entry.value.size() + 100;
    batch.push_back(std::move(record));
  }
  if (bytes > kSnapshotBytesMax) return;
  const Offset base = log_end_;
  const absl::StatusOr<Offset> next = log_->Append(base, batch, record::Codec::kZstd);
  if (!next.ok()) return;  // also when in doubt: repeating what is there changes nothing
  read_ = log_end_ = *next;
  if (log_->DeleteBefore(base).ok()) records_in_log_ = static_cast<int64_t>(batch.size());
}

}  // namespace sluice::connector
