#include "connector/source/slice_puller.h"

#include <algorithm>
#include <charconv>
#include <deque>
#include <utility>

#include "common/status_macros.h"
#include "common/text.h"
#include "connector/http/retry.h"
#include "connector/source/moment.h"

namespace sluice::connector {
namespace {

constexpr char kSourceHeader[] = "sluice.source", kTopicIdHeader[] = "sluice.topic_id", kPullHeader[] = "sluice.pull",
               kPageHeader[] = "sluice.page", kRecordHeader[] = "sluice.record";
/// Records exactly at a cursor's value that can be told from one another; a position grows by 16 bytes for each.
constexpr size_t kSeenMax = 20'000;
/// How stale a checkpoint may get while batches carry the position: bounds what is asked of retention.
constexpr absl::Duration kCheckpointEvery = absl::Minutes(1);
/// A position of more than this has a cursor with many records at one value, and is to blame before the record is.
constexpr size_t kPositionBytesLarge = size_t{64} << 10;
constexpr http::RetryPolicy kTopicBackoff{.backoff_first = absl::Milliseconds(100), .backoff_max = absl::Seconds(5)};

size_t SizeOf(const PageRecord& record) {
  return record.value.size() + (record.key ? record.key->size() : 0) + 16;
}

/// Whether reading the tail anew and trying again may help.
bool MayPass(const absl::Status& status) {
  return PartitionLog::IsMismatch(status) || PartitionLog::IsUnknown(status) || absl::IsUnavailable(status) ||
         absl::IsDeadlineExceeded(status) || absl::IsAborted(status) || absl::IsResourceExhausted(status);
}

bool Holds(const std::vector<uint64_t>& hashes, uint64_t hash) {
  return std::find(hashes.begin(), hashes.end(), hash) != hashes.end();
}

/// Ends of the parts of a page: by bytes and by records, never empty. A record that is `away` is a part of its own.
std::deque<size_t> PartEnds(absl::Span<const PageRecord> records, const std::vector<bool>& away, size_t bytes_max,
                            int64_t records_max) {
  std::deque<size_t> ends;
  size_t bytes = 0;
  int64_t count = 0;
  for (size_t i = 0; i < records.size(); ++i) {
    const size_t size = SizeOf(records[i]);
    const bool full = bytes + size > bytes_max || count == records_max;
    if (count > 0 && (full || away[i] || away[i - 1])) {
      ends.push_back(i);
      bytes = 0;
      count = 0;
    }
    bytes += size;
    ++count;
  }
  if (!records.empty()) ends.push_back(records.size());
  return ends;
}

}  // namespace

SlicePuller::SlicePuller(Options options, Seams seams) : options_(std::move(options)), seams_(std::move(seams)) {}

std::string SlicePuller::StateKey() const {
  return Cat("source/", options_.pipeline, "/", options_.slice);
}

absl::Status SlicePuller::Pull() {
  synced_ = false;
  target_pull_.reset();
  std::optional<absl::Duration> failing_since;
  int64_t records_seen = -1;
  for (int retry = 0;; ++retry) {
    if (seams_.stop->stopped()) return absl::CancelledError("stopped");
    source_failed_ = false;
    absl::Status status = PullOnce();
    if (status.ok() || source_failed_ || !MayPass(status)) return status;
    synced_ = false;
    const absl::Duration now = seams_.clock->Monotonic();
    // A record written since the last failure shows that the topic works: only an unbroken row of failures counts.
    if (!failing_since || seams_.progress->records != records_seen) {
      failing_since = now;
      records_seen = seams_.progress->records;
      retry = 0;
    }
    if (now - *failing_since > options_.retry_max) return status;
    ++seams_.progress->retries;
    if (seams_.on_retry) seams_.on_retry(status);
    if (!seams_.stop->Sleep(http::Backoff(kTopicBackoff, retry, *seams_.random))) {
      return absl::CancelledError("stopped");
    }
  }
}

absl::Status SlicePuller::PullOnce() {
  if (!synced_) SLUICE_RETURN_IF_ERROR(Sync());
  synced_ = true;
  while (!next_.done) {
    if (seams_.stop->stopped()) return absl::CancelledError("stopped");
    absl::StatusOr<Page> page = seams_.pages->Fetch({.token = next_.token, .from = next_.cursor.from});
    if (!page.ok()) {
      source_failed_ = true;
      return page.status();
    }
    ++seams_.progress->pages;
    SLUICE_RETURN_IF_ERROR(WritePage(*std::move(page)));
  }
  return absl::OkStatus();
}

// --- Where it stands ---

absl::Status SlicePuller::Sync() {
  SLUICE_ASSIGN_OR_RETURN(const PartitionLog::End end, seams_.log->ReadEnd());
  SLUICE_ASSIGN_OR_RETURN(const StateEntry entry, seams_.state->Get(StateKey()));
  checkpoint_version_ = entry.version;
  checkpoint_at_ = seams_.clock->Monotonic();
  std::optional<Checkpoint> checkpoint;
  if (!entry.value.empty()) {
    absl::StatusOr<Checkpoint> decoded = DecodeCheckpoint(entry.value);
    if (!decoded.ok()) return absl::DataLossError(Cat("state of ", StateKey(), ": ", Message(decoded.status())));
    // A log that ends before the checkpoint was made is another topic under the same name: begin anew.
    const bool same_topic = decoded->topic_id.empty() || decoded->topic_id == end.topic_id;
    if (same_topic && decoded->data_end <= end.log_end) checkpoint = *std::move(decoded);
  }
  const Offset from = std::max(end.log_start, checkpoint ? checkpoint->data_end : Offset(0));
  SLUICE_ASSIGN_OR_RETURN(std::optional<Position> position, LastInTopic(end, from));
  if (!position && checkpoint) position = checkpoint->position;
  log_start_ = end.log_start;
  log_end_ = end.log_end;
  data_end_ = end.data_end;
  topic_id_ = end.topic_id;
  next_ = NextAfter(position);
  if (!target_pull_) {
    const bool complete = options_.once && position && position->PullDone();
    target_pull_ = complete ? position->pull : next_.pull;
  }
  next_.done = next_.pull > *target_pull_;
  return next_.done ? absl::OkStatus() : FindLetters();
}

absl::StatusOr<std::optional<Position>> SlicePuller::OwnPosition(const record::Record& last) const {
  for (const record::Header& header : last.headers) {
    if (header.key != kPositionHeader || !header.value) continue;
    absl::StatusOr<Position> position = DecodePosition(*header.value);
    if (!position.ok()) {
      return absl::DataLossError(Cat(seams_.log->name(), " offset ", last.offset, ": header ", kPositionHeader, ": ",
                                     Message(position.status())));
    }
    if (position->pipeline == options_.pipeline && position->slice == options_.slice) return *std::move(position);
  }
  return std::nullopt;
}

absl::StatusOr<std::optional<Position>> SlicePuller::LastInTopic(const PartitionLog::End& end, Offset from) {
  std::optional<Position> found;
  absl::Status failed;
  const auto visit = [&](absl::Span<const record::Record> batch, Offset) {
    absl::StatusOr<std::optional<Position>> position = OwnPosition(batch.back());
    if (!position.ok()) {
      failed = position.status();
      return false;
    }
    if (*position) found = **std::move(position);
    return true;
  };
  if (end.data_end <= from) return found;
  SLUICE_RETURN_IF_ERROR(seams_.log->Read(end.data_end - 1, end.data_end, visit));
  SLUICE_RETURN_IF_ERROR(failed);
  if (found) return found;
  // Someone else wrote last: look at everything since the checkpoint.
  SLUICE_RETURN_IF_ERROR(seams_.log->Read(from, end.data_end, visit));
  SLUICE_RETURN_IF_ERROR(failed);
  return found;
}

SlicePuller::Next SlicePuller::NextAfter(const std::optional<Position>& position) const {
  Next next;
  if (!position) {
    if (options_.incremental && !options_.incremental->start.empty()) {
      next.cursor.from = CursorValueOfStart(options_.incremental->start);
      next.cursor.max = next.cursor.from;
    }
    return next;
  }
  next.pull = position->pull;
  next.cursor = position->cursor;
  next.letters_from = position->letters_from;
  if (position->PullDone()) {
    ++next.pull;
    next.cursor.from = next.cursor.max;
    next.cursor.from_seen = next.cursor.max_seen;
  } else if (position->InsidePage()) {
    next.page = position->page;
    next.token = position->token;
    next.parts_done = position->part;
    next.page_offset = position->page_offset;
  } else {
    next.page = position->page + 1;
    next.token = position->next;
  }
  return next;
}

// --- Writing ---

absl::StatusOr<std::map<uint64_t, int64_t>> SlicePuller::WrittenOfPage() {
  if (next_.page_offset < log_start_) {
    return absl::DataLossError(Cat(
        seams_.log->name(), ": the last pull ended inside a page whose first records (from offset ", next_.page_offset,
        ") retention has removed, so what is missing of it cannot be told: raise the topic's retention.ms, and give "
        "the pipeline another name to begin anew"));
  }
  std::map<uint64_t, int64_t> written;
  absl::Status failed;
  const auto visit = [&](absl::Span<const record::Record> batch, Offset) {
    const absl::StatusOr<std::optional<Position>> position = OwnPosition(batch.back());
    if (!position.ok()) {
      failed = position.status();
      return false;
    }
    if (*position && (*position)->pull == next_.pull && (*position)->page == next_.page) {
      for (const record::Record& record : batch) ++written[RecordHash(record.value.value_or(std::string_view()))];
    }
    return true;
  };
  SLUICE_RETURN_IF_ERROR(seams_.log->Read(next_.page_offset, data_end_, visit));
  SLUICE_RETURN_IF_ERROR(failed);
  return written;
}

absl::StatusOr<std::vector<PageRecord>> SlicePuller::Select(std::vector<PageRecord> records) {
  std::map<uint64_t, int64_t> written;
  if (next_.parts_done > 0) {
    SLUICE_ASSIGN_OR_RETURN(written, WrittenOfPage());
  }
  std::vector<PageRecord> selected;
  selected.reserve(records.size());
  for (PageRecord& record : records) {
    if (options_.incremental && !next_.cursor.from.empty() && !record.cursor.empty()) {
      const absl::StatusOr<int> order = CompareCursorValues(record.cursor, next_.cursor.from);
      if (!order.ok()) {
        source_failed_ = true;
        return order.status();
      }
      if (*order < 0 || (*order == 0 && Holds(next_.cursor.from_seen, RecordHash(record.value)))) {
        ++seams_.progress->skipped;
        continue;
      }
    }
    if (!written.empty()) {
      const auto found = written.find(RecordHash(record.value));
      if (found != written.end() && found->second > 0) {
        --found->second;
        continue;
      }
    }
    selected.push_back(std::move(record));
  }
  return selected;
}

/// `maybe_known`: the cursor may have been here before with this record.
absl::Status SlicePuller::Advance(CursorState* cursor, const PageRecord& record, bool maybe_known) const {
  if (!options_.incremental || record.cursor.empty()) return absl::OkStatus();
  int order = 1;
  if (!cursor->max.empty()) {
    SLUICE_ASSIGN_OR_RETURN(order, CompareCursorValues(record.cursor, cursor->max));
  }
  if (order > 0) {
    cursor->max = record.cursor;
    cursor->max_seen.clear();
  }
  if (order < 0) return absl::OkStatus();
  const uint64_t hash = RecordHash(record.value);
  if (maybe_known && Holds(cursor->max_seen, hash)) return absl::OkStatus();
  if (cursor->max_seen.size() == kSeenMax) {
    return absl::FailedPreconditionError(
        Cat("more than ", kSeenMax, " records stand at the cursor's value ", record.cursor,
            ": they cannot be told from those that the next pull gets again; use a finer field"));
  }
  cursor->max_seen.push_back(hash);
  return absl::OkStatus();
}

absl::Status SlicePuller::WritePage(Page page) {
  SLUICE_ASSIGN_OR_RETURN(const std::vector<PageRecord> records, Select(std::move(page.records)));
  Position position{.pipeline = options_.pipeline,
                    .slice = options_.slice,
                    .pull = next_.pull,
                    .page = next_.page,
                    .part = next_.parts_done,
                    .parts = next_.parts_done,
                    .page_offset = next_.parts_done > 0 ? next_.page_offset : log_end_,
                    .letters_from = next_.letters_from,
                    .token = next_.token,
                    .next = page.next,
                    .last = page.last,
                    .cursor = next_.cursor};
  bool told = false;
  SLUICE_RETURN_IF_ERROR(WriteParts(records, &position, &told));
  position.parts = position.part;
  position.letters_from = letters_end_;
  letters_.clear();
  const bool stale = seams_.clock->Monotonic() - checkpoint_at_ >= kCheckpointEvery;
  if (!told || page.last || stale) SLUICE_RETURN_IF_ERROR(SaveCheckpoint(position));
  next_ = NextAfter(position);
  next_.done = next_.pull > *target_pull_;
  if (next_.done) ++seams_.progress->pulls;
  return absl::OkStatus();
}

/// `position` goes along; `told` says whether the topic's last batch says that the page is complete.
absl::Status SlicePuller::WriteParts(absl::Span<const PageRecord> records, Position* position, bool* told) {
  std::vector<bool> away(records.size());  // a letter already
  std::map<uint64_t, int64_t> letters = letters_;
  for (size_t i = 0; !letters.empty() && i < records.size(); ++i) {
    const auto found = letters.find(RecordHash(records[i].value));
    away[i] = found != letters.end() && found->second-- > 0;
  }
  std::deque<size_t> ends = PartEnds(records, away, options_.batch_bytes, options_.batch_records);
  size_t begin = 0;
  while (!ends.empty()) {
    const absl::Span<const PageRecord> part = records.subspan(begin, ends.front() - begin);
    position->parts = position->part + static_cast<int32_t>(ends.size());
    const absl::Status status = WritePart(part, away[begin], position, told);
    if (PartitionLog::IsTooLarge(status) && part.size() > 1) {
      ends.push_front(begin + part.size() / 2);
      continue;
    }
    SLUICE_RETURN_IF_ERROR(status);
    begin = ends.front();
    ends.pop_front();
  }
  return absl::OkStatus();
}

/// One batch; or of one record that is too large, a letter. IsTooLarge: of several records; nothing was done.
absl::Status SlicePuller::WritePart(absl::Span<const PageRecord> part, bool away, Position* position, bool* told) {
  Position after = *position;
  for (const PageRecord& record : part) {
    if (absl::Status status = Advance(&after.cursor, record, away); !status.ok()) {
      source_failed_ = true;
      return status;
    }
  }
  ++after.part;
  absl::Status status = away ? absl::OkStatus() : Append(after, part);
  *told = status.ok() && !away;
  if (PartitionLog::IsTooLarge(status) && part.size() == 1) status = SendAway(after, part.front(), status);
  SLUICE_RETURN_IF_ERROR(status);
  if (!*told) --after.part;
  *position = std::move(after);
  return absl::OkStatus();
}

absl::Status SlicePuller::Append(const Position& position, absl::Span<const PageRecord> records) {
  const std::string header = EncodePosition(position);
  const int64_t now_ms = absl::ToUnixMillis(seams_.clock->Wall());
  std::vector<record::Record> batch;
  batch.reserve(records.size());
  int64_t bytes = 0;
  for (const PageRecord& record : records) {
    record::Record out;
    out.timestamp_ms = now_ms;
    out.value = record.value;
    if (record.key) out.key = *record.key;
    bytes += static_cast<int64_t>(record.value.size());
    batch.push_back(std::move(out));
  }
  batch.back().headers.push_back({.key = kPositionHeader, .value = header});
  SLUICE_ASSIGN_OR_RETURN(log_end_, seams_.log->Append(log_end_, batch, options_.codec));
  data_end_ = log_end_;
  seams_.progress->records += static_cast<int64_t>(records.size());
  seams_.progress->bytes += bytes;
  return absl::OkStatus();
}

/// `position` is the one after `record`.
absl::Status SlicePuller::SendAway(const Position& position, const PageRecord& record, const absl::Status& why) {
  const size_t header = EncodePosition(position).size();
  if (header > kPositionBytesLarge && header > record.value.size()) {
    return absl::FailedPreconditionError(Cat(
        seams_.log->name(), ": the source's position takes ", header,
        " bytes because many records stand at one value of the cursor, and with it not even one record fits the topic: "
        "raise the topic's max.message.bytes, or use a finer field (",
        Message(why), ")"));
  }
  const uint64_t hash = RecordHash(record.value);
  const int64_t copy = ++letters_[hash];
  DeadLetter letter{.timestamp_ms = absl::ToUnixMillis(seams_.clock->Wall()),
                    .key = record.key,
                    .value = record.value,
                    .reason = Cat("the record is too large for ", seams_.log->name(), ": ", Message(why)),
                    .whence = {{kSourceHeader, Cat(options_.pipeline, "/", options_.slice)},
                               {kTopicIdHeader, topic_id_},
                               {kPullHeader, std::to_string(position.pull)},
                               {kPageHeader, std::to_string(position.page)},
                               {kRecordHeader, Cat(Hex{hash, 16})},
                               {"sluice.copy", std::to_string(copy)}}};
  SLUICE_ASSIGN_OR_RETURN(letters_end_, seams_.dead_letters->Append(position.letters_from, {std::move(letter)}));
  ++seams_.progress->dead_letters;
  return absl::OkStatus();
}

/// What the page that is next has as letters already.
absl::Status SlicePuller::FindLetters() {
  letters_.clear();
  const std::string source = Cat(options_.pipeline, "/", options_.slice);
  const std::string pull = std::to_string(next_.pull), page = std::to_string(next_.page);
  SLUICE_ASSIGN_OR_RETURN(
      letters_end_, seams_.dead_letters->Visit(next_.letters_from, [&](const record::Record& letter) {
        if (HeaderText(letter, kSourceHeader) != source || HeaderText(letter, kTopicIdHeader) != topic_id_ ||
            HeaderText(letter, kPullHeader) != pull || HeaderText(letter, kPageHeader) != page) {
          return;
        }
        uint64_t hash = 0;
        const std::string_view hex = HeaderText(letter, kRecordHeader);
        std::from_chars(hex.data(), hex.data() + hex.size(), hash, 16);
        ++letters_[hash];
      }));
  return absl::OkStatus();
}

absl::Status SlicePuller::SaveCheckpoint(const Position& position) {
  const std::string checkpoint = EncodeCheckpoint({.position = position, .data_end = data_end_, .topic_id = topic_id_});
  SLUICE_ASSIGN_OR_RETURN(checkpoint_version_, seams_.state->Put(StateKey(), checkpoint, checkpoint_version_));
  checkpoint_at_ = seams_.clock->Monotonic();
  return absl::OkStatus();
}

}  // namespace sluice::connector
