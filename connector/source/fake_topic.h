// For tests: a partition in memory, and a state store, in which every call is a step at which a fault can be planted.
// Handles on one FakeTopic see the same log, so a puller that "crashed" is replaced by a new one on the same topic.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "client/error.h"
#include "common/text.h"
#include "connector/dead_letters.h"
#include "connector/partition_log.h"
#include "connector/state_store.h"

namespace sluice::connector {

enum class Fault {
  kCrashBefore,     // the process dies; the call did nothing
  kCrashAfter,      // the process dies; the call was done, its answer lost
  kUnknownLost,     // no answer; nothing was written
  kUnknownWritten,  // no answer; it was written
  kUnknownLate,     // no answer; it is written later, if the log still ends there
  kUnavailable,     // refused
  kControlBatch,    // a new leader's control batch comes in between
};

struct FakeTopic {
  struct Stored {
    struct Item {
      std::optional<std::string> key;
      std::string value;
      std::vector<std::pair<std::string, std::string>> headers;
    };
    Offset base;
    bool control = false;
    std::vector<Item> items;
    Offset next() const { return base + static_cast<int64_t>(control ? 1 : items.size()); }
  };

  std::recursive_mutex mutex;
  std::vector<Stored> batches;
  Offset log_start;
  std::string id = "a topic";
  size_t bytes_max = 0;  // of a batch's values and headers; 0: no limit
  std::map<std::string, StateEntry> state;
  int64_t state_versions = 0;

  int64_t records_read = 0;
  int64_t steps = 0;     // calls so far
  int64_t fault_at = 0;  // the step at which `fault` happens; 0: none
  Fault fault = Fault::kCrashBefore;
  bool fired = false;
  std::function<void()> at_step;  // runs inside the step `fault_at` instead of a fault
  std::optional<std::pair<Offset, Stored>> late;

  Offset End() const { return batches.empty() ? log_start : batches.back().next(); }
  void AddControlBatch() { batches.push_back({.base = End(), .control = true, .items = {}}); }

  /// Counts a step; true when the fault happens now.
  bool Step() {
    if (late) {
      auto [expected, stored] = *std::exchange(late, std::nullopt);
      if (End() == expected) batches.push_back(std::move(stored));
    }
    if (++steps != fault_at) return false;
    fired = true;
    if (!at_step) return true;
    at_step();
    return false;
  }
  std::vector<std::string> Values() const {
    std::vector<std::string> values;
    for (const Stored& batch : batches) {
      for (const Stored::Item& item : batch.items) values.push_back(item.value);
    }
    return values;
  }
};

inline absl::Status Crash() {
  return absl::CancelledError("the process died");
}

class FakePartitionLog final : public PartitionLog {
 public:
  explicit FakePartitionLog(FakeTopic& topic) : topic_(topic) {}
  const std::string& name() const override { return name_; }

  absl::StatusOr<End> ReadEnd() override {
    const std::lock_guard lock(topic_.mutex);
    if (topic_.Step() && topic_.fault != Fault::kControlBatch) return Broken();
    End end{
        .log_end = topic_.End(), .data_end = topic_.log_start, .log_start = topic_.log_start, .topic_id = topic_.id};
    for (const FakeTopic::Stored& batch : topic_.batches) {
      if (!batch.control && batch.next() > topic_.log_start) end.data_end = batch.next();
    }
    return end;
  }

  absl::StatusOr<Offset> Append(Offset expected, absl::Span<const record::Record> batch, record::Codec) override {
    const std::lock_guard lock(topic_.mutex);
    const bool fault = topic_.Step();
    if (fault && topic_.fault == Fault::kControlBatch) topic_.AddControlBatch();
    if (fault && topic_.fault == Fault::kCrashBefore) return Crash();
    if (fault && topic_.fault == Fault::kUnavailable) return absl::UnavailableError("no leader");
    if (fault && topic_.fault == Fault::kUnknownLost) return client::OutcomeUnknown("lost", "t", 0);
    FakeTopic::Stored stored = Copy(expected, batch);
    if (topic_.bytes_max > 0 && Bytes(stored) > topic_.bytes_max) {
      return Error(client::Reason::kMessageTooLarge, Cat("a batch of ", Bytes(stored), " bytes"));
    }
    if (fault && topic_.fault == Fault::kUnknownLate) {
      topic_.late = {expected, std::move(stored)};
      return client::OutcomeUnknown("late", "t", 0);
    }
    if (topic_.End() != expected) {
      return Error(client::Reason::kExpectedOffsetMismatch, "the log ends elsewhere");
    }
    topic_.batches.push_back(std::move(stored));
    if (fault && topic_.fault == Fault::kCrashAfter) return Crash();
    if (fault && topic_.fault == Fault::kUnknownWritten) return client::OutcomeUnknown("written", "t", 0);
    return topic_.End();
  }

  absl::Status Read(Offset from, Offset to, const Visitor& visit) override {
    std::vector<FakeTopic::Stored> batches;
    {
      const std::lock_guard lock(topic_.mutex);
      if (topic_.Step() && topic_.fault != Fault::kControlBatch) return Broken();
      if (from < topic_.log_start) return absl::OutOfRangeError("below the log start");
      batches = topic_.batches;
    }
    for (const FakeTopic::Stored& batch : batches) {
      if (batch.control || batch.next() <= from || batch.base >= to) continue;
      std::vector<record::Record> records;
      for (size_t i = 0; i < batch.items.size(); ++i) {
        record::Record record;
        record.offset = batch.base + static_cast<int64_t>(i);
        if (batch.items[i].key) record.key = *batch.items[i].key;
        record.value = batch.items[i].value;
        for (const auto& [key, value] : batch.items[i].headers) record.headers.push_back({.key = key, .value = value});
        records.push_back(std::move(record));
      }
      topic_.records_read += static_cast<int64_t>(records.size());
      if (!visit(records, batch.next())) break;
    }
    return absl::OkStatus();
  }

  absl::Status DeleteBefore(Offset before) override {
    const std::lock_guard lock(topic_.mutex);
    if (topic_.Step()) return Broken();
    topic_.log_start = std::max(topic_.log_start, before);
    std::erase_if(topic_.batches,
                  [&](const auto& batch) { return batch.next() <= topic_.log_start && batch.next() < topic_.End(); });
    return absl::OkStatus();
  }

 private:
  absl::Status Broken() const {
    const bool crash = topic_.fault == Fault::kCrashBefore || topic_.fault == Fault::kCrashAfter;
    return crash ? Crash() : absl::UnavailableError("no leader");
  }
  static absl::Status Error(client::Reason reason, std::string message) {
    client::ErrorDetail detail;
    detail.reason = reason;
    detail.message = std::move(message);
    return client::MakeError(detail);
  }
  static size_t Bytes(const FakeTopic::Stored& batch) {
    size_t bytes = 0;
    for (const FakeTopic::Stored::Item& item : batch.items) {
      bytes += item.value.size();
      for (const auto& [name, value] : item.headers) bytes += name.size() + value.size();
    }
    return bytes;
  }
  static FakeTopic::Stored Copy(Offset base, absl::Span<const record::Record> batch) {
    FakeTopic::Stored stored{.base = base, .control = false, .items = {}};
    for (const record::Record& record : batch) {
      FakeTopic::Stored::Item item;
      if (record.key) item.key = std::string(*record.key);
      item.value = std::string(record.value.value_or(""));
      for (const record::Header& header : record.headers) {
        item.headers.emplace_back(std::string(header.key), std::string(header.value.value_or("")));
      }
      stored.items.push_back(std::move(item));
    }
    return stored;
  }
  FakeTopic& topic_;
  const std::string name_ = "t/0";
};

/// `exists` says whether the topic was made.
inline DeadLetterQueue::Open FakeDeadLetters(FakeTopic& topic, bool& exists) {
  return [&topic, &exists](bool make) -> absl::StatusOr<std::unique_ptr<PartitionLog>> {
    exists = exists || make;
    if (!exists) return nullptr;
    return std::make_unique<FakePartitionLog>(topic);
  };
}

class FakeStateStore final : public StateStore {
 public:
  explicit FakeStateStore(FakeTopic& topic) : topic_(topic) {}

  absl::StatusOr<StateEntry> Get(std::string_view key) override {
    const std::lock_guard lock(topic_.mutex);
    if (topic_.Step()) return Broken();
    const auto found = topic_.state.find(std::string(key));
    return found == topic_.state.end() ? StateEntry{} : found->second;
  }
  absl::StatusOr<int64_t> Put(std::string_view key, std::string_view value, int64_t version) override {
    const std::lock_guard lock(topic_.mutex);
    const bool fault = topic_.Step();
    if (fault && topic_.fault != Fault::kCrashAfter) return Broken();
    StateEntry& entry = topic_.state[std::string(key)];
    if (entry.version != version) return absl::AbortedError("changed by another");
    entry = {.value = std::string(value), .version = topic_.state_versions++};
    if (fault) return Crash();
    return entry.version;
  }

 private:
  absl::Status Broken() const {
    const bool crash = topic_.fault == Fault::kCrashBefore || topic_.fault == Fault::kCrashAfter;
    return crash ? Crash() : absl::UnavailableError("no leader");
  }
  FakeTopic& topic_;
};

}  // namespace sluice::connector
