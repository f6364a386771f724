// Pulls one slice of a source into one partition, exactly once.
//
// How: each batch carries the position after it, and is appended only if the log ends where this puller last saw it
// end. So position and records move together or not at all. Whatever leaves doubt (start, a mismatch, an unknown
// outcome) is answered by reading the tail of the partition again and going on from the position found there: a restart
// after a crash is the same path as a lost answer.
//   - A page that is larger than a batch goes in parts. To go on inside a page, the page is asked for again and the
//     records that its earlier parts wrote (read back from the topic) are left out, even if the API now orders them
//     otherwise.
//   - A record that the topic refuses as too large becomes a dead letter. To go on inside a page, its letters are read
//     back too; so such a record stays a letter even if the topic's limit was raised meanwhile.
//   - Pages that end without a batch, and each pull's end, leave a checkpoint in the state store. It counts only while
//     the slice has no later batch, so a second connector that does find records is never overruled.
//   - Of an incremental cursor, the records exactly at its value are remembered by hash, because most APIs answer
//     "from, inclusive".
// Threads: one.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/executor.h"
#include "connector/dead_letters.h"
#include "connector/partition_log.h"
#include "connector/pipeline_config.h"
#include "connector/source/page_source.h"
#include "connector/source/position.h"
#include "connector/state_store.h"
#include "connector/stop_signal.h"

namespace sluice::connector {

/// Counts since the start; read from any thread.
struct SourceProgress {
  std::atomic<int64_t> pages{0};
  std::atomic<int64_t> records{0};
  std::atomic<int64_t> bytes{0};
  std::atomic<int64_t> skipped{0};  // sent again by the API and left out
  std::atomic<int64_t> retries{0};  // of the API and of the topic
  std::atomic<int64_t> pulls{0};    // completed
  std::atomic<int64_t> dead_letters{0};
};

class SlicePuller {
 public:
  struct Options {
    std::string pipeline;
    std::string slice;
    std::optional<IncrementalConfig> incremental;
    bool once = false;  // one pull is all there ever is
    record::Codec codec = record::Codec::kNone;
    size_t batch_bytes = size_t{512} << 10;  // of keys and values, uncompressed; a larger record goes alone
    int64_t batch_records = 5000;
    absl::Duration retry_max = absl::Minutes(2);  // how long the topic may keep failing before Pull gives up
  };
  struct Seams {
    PartitionLog* log = nullptr;
    StateStore* state = nullptr;
    DeadLetterQueue* dead_letters = nullptr;
    PageSource* pages = nullptr;
    Clock* clock = nullptr;
    Random* random = nullptr;
    StopSignal* stop = nullptr;
    SourceProgress* progress = nullptr;
    std::function<void(const absl::Status& why)> on_retry;  // may be empty
  };
  SlicePuller(Options options, Seams seams);

  /// Pulls until the API has no more pages: finishes the pull that the position is in the middle of, otherwise begins
  /// one. With `once` and the pull long complete, does nothing. CANCELLED after a stop; other errors leave a state from
  /// which the next call goes on.
  absl::Status Pull();

 private:
  /// Where the slice stands: a page to fetch, perhaps with its first parts already written.
  struct Next {
    int64_t pull = 1;
    int64_t page = 0;
    std::string token;
    CursorState cursor;
    int32_t parts_done = 0;
    Offset page_offset;   // of the page's first record, when parts_done > 0
    Offset letters_from;  // no dead letter of the page stands before it
    bool done = false;    // the pull that this call works on is complete
  };

  absl::Status PullOnce();
  absl::Status Sync();
  absl::StatusOr<std::optional<Position>> LastInTopic(const PartitionLog::End& end, Offset from);
  absl::StatusOr<std::optional<Position>> OwnPosition(const record::Record& last) const;
  Next NextAfter(const std::optional<Position>& position) const;
  absl::StatusOr<std::map<uint64_t, int64_t>> WrittenOfPage();
  absl::StatusOr<std::vector<PageRecord>> Select(std::vector<PageRecord> records);
  absl::Status FindLetters();
  absl::Status WritePage(Page page);
  absl::Status WriteParts(absl::Span<const PageRecord> records, Position* position, bool* told);
  absl::Status WritePart(absl::Span<const PageRecord> part, bool away, Position* position, bool* told);
  absl::Status Append(const Position& position, absl::Span<const PageRecord> records);
  absl::Status SendAway(const Position& position, const PageRecord& record, const absl::Status& why);
  absl::Status Advance(CursorState* cursor, const PageRecord& record, bool maybe_known) const;
  absl::Status SaveCheckpoint(const Position& position);
  std::string StateKey() const;

  const Options options_;
  const Seams seams_;
  bool synced_ = false;
  bool source_failed_ = false;          // the last error is the API's: it was tried again below this class
  std::optional<int64_t> target_pull_;  // the pull that this call works on
  Next next_;
  Offset log_start_;
  Offset log_end_;   // what the next append expects
  Offset data_end_;  // one past the newest data batch known
  std::string topic_id_;
  Offset letters_end_;                   // of the dead letters, as last seen
  std::map<uint64_t, int64_t> letters_;  // of the page: how many dead letters there are of each hash
  int64_t checkpoint_version_ = -1;
  absl::Duration checkpoint_at_;
};

}  // namespace sluice::connector
