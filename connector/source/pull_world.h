// For tests: an API of pages and connector processes that pull it into one topic, one after the other. Included by
// tests only.
#pragma once

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "common/text.h"
#include "connector/source/fake_topic.h"
#include "connector/source/json_text.h"
#include "connector/source/slice_puller.h"

namespace sluice::connector {

inline constexpr Fault kAllFaults[] = {Fault::kCrashBefore,    Fault::kCrashAfter,  Fault::kUnknownLost,
                                       Fault::kUnknownWritten, Fault::kUnknownLate, Fault::kUnavailable,
                                       Fault::kControlBatch};

class TickingClock final : public Clock {
 public:
  absl::Duration Monotonic() const override { return absl::Milliseconds(++ticks_); }
  absl::Time Wall() const override { return absl::FromUnixSeconds(1'700'000'000); }

 private:
  mutable std::atomic<int64_t> ticks_{0};
};

class CountingRandom final : public Random {
 public:
  uint64_t Next() override { return next_ += 0x9e3779b97f4a7c15; }

 private:
  uint64_t next_ = 1;
};

class NoWait final : public StopSignal {
 public:
  bool Sleep(absl::Duration) override { return !stopped(); }
};

/// Pages of records; tokens are page numbers.
class FakeApi final : public PageSource {
 public:
  std::vector<std::vector<std::string>> pages;
  std::function<void(std::vector<std::string>*)> disturb;  // how an answer differs from the last
  std::vector<std::string> asked_from;

  absl::StatusOr<Page> Fetch(const PageAsk& ask) override {
    asked_from.push_back(ask.from);
    const size_t number = ask.token.empty() ? 0 : std::stoul(ask.token);
    Page page;
    std::vector<std::string> values = number < pages.size() ? pages[number] : std::vector<std::string>();
    if (disturb) disturb(&values);
    for (const std::string& value : values) {
      PageRecord record{.value = value, .key = Cat("key of ", value), .cursor = {}};
      const auto document = JsonDocument::Parse(value);
      if (document.ok() && document->root().kind == JsonValue::Kind::kObject) {
        if (const auto time = At(document->root(), "/t")) record.cursor = std::string(time->raw);
      }
      page.records.push_back(std::move(record));
    }
    page.last = number + 1 >= pages.size();
    if (!page.last) page.next = std::to_string(number + 1);
    return page;
  }
};

/// One connector process after the other on one topic.
struct World {
  FakeTopic topic;
  FakeTopic letters;
  bool letters_exist = false;
  FakeApi api;
  std::optional<IncrementalConfig> incremental;
  bool once = true;
  int64_t batch_records = 2;
  int64_t retries = 0;

  /// A new process pulls once.
  absl::Status Pull() {
    FakePartitionLog log(topic);
    FakeStateStore state(topic);
    DeadLetterQueue dead_letters(FakeDeadLetters(letters, letters_exist));
    TickingClock clock;
    CountingRandom random;
    NoWait stop;
    SourceProgress progress;
    SlicePuller puller(
        {.pipeline = "p", .slice = "0", .incremental = incremental, .once = once, .batch_records = batch_records},
        {.log = &log,
         .state = &state,
         .dead_letters = &dead_letters,
         .pages = &api,
         .clock = &clock,
         .random = &random,
         .stop = &stop,
         .progress = &progress,
         .on_retry = {}});
    const absl::Status status = puller.Pull();
    retries += progress.retries;
    return status;
  }
  /// Processes follow one another until one comes to the end.
  void PullToTheEnd() {
    for (int process = 0; process < 10; ++process) {
      const absl::Status status = Pull();
      if (status.ok()) return;
      REQUIRE(absl::IsCancelled(status));
    }
    FAIL("no process came to the end");
  }
  std::vector<std::string> Published() const {
    std::vector<std::string> all;
    for (const auto& page : api.pages) all.insert(all.end(), page.begin(), page.end());
    return all;
  }
};

inline const std::vector<std::vector<std::string>> kPages = {
    {"1", "2", "3"}, {}, {"4", "5", "6", "7", "8", "9", "10"}, {"11"}, {}};

inline std::vector<std::string> Sorted(std::vector<std::string> values) {
  std::sort(values.begin(), values.end());
  return values;
}

}  // namespace sluice::connector
