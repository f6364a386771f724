#include "storage/journal_state.h"

#include <algorithm>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "common/crc32c.h"

namespace sluice::storage {

namespace {

absl::Status Misfit(const ReplicaId& replica, const std::string& what) {
  return absl::FailedPreconditionError(absl::StrCat("replica ", replica.ToString(), ": ", what));
}

absl::Status Unknown(const ReplicaId& replica, const std::string& record) {
  return Misfit(replica, absl::StrCat(record, " for a replica that was never created, or was dropped"));
}

template <class Segments>
auto FindSegment(Segments& segments, SegmentId id) {
  auto at = std::lower_bound(segments.begin(), segments.end(), id,
                             [](const SegmentState& segment, SegmentId wanted) { return segment.id < wanted; });
  return at != segments.end() && at->id == id ? at : segments.end();
}

}  // namespace

std::string SegmentId::ToString() const {
  char text[48];
  std::snprintf(text, sizeof text, "%020lld-%d", static_cast<long long>(base.value()), epoch.value());
  return text;
}

const ReplicaId& ReplicaOf(const JournalRecord& record) {
  return std::visit([](const auto& r) -> const ReplicaId& { return r.replica; }, record);
}

const SegmentState* ReplicaState::Find(SegmentId id) const {
  auto at = FindSegment(segments, id);
  return at == segments.end() ? nullptr : &*at;
}

int64_t ReplicaState::SyncedBytes(const SegmentState& segment) const {
  if (segment.id < checkpoint.segment) return segment.end_position;
  return segment.id == checkpoint.segment ? std::min(checkpoint.position, segment.end_position) : 0;
}

const ReplicaState* JournalState::Find(const ReplicaId& id) const {
  auto at = replicas_.find(id);
  return at == replicas_.end() ? nullptr : &at->second;
}

void JournalState::TakeDataEnds(const JournalState& from) {
  for (auto& [id, replica] : replicas_) {
    if (const ReplicaState* other = from.Find(id)) replica.data_end = other->data_end;
  }
}

absl::Status JournalState::Apply(const JournalRecord& record) {
  return std::visit([this](const auto& r) { return ApplyTo(r); }, record);
}

absl::Status JournalState::ApplyTo(const AppendRecord& record) {
  auto at = replicas_.find(record.replica);
  if (at == replicas_.end()) return Unknown(record.replica, "append");
  ReplicaState& replica = at->second;
  const int64_t length = static_cast<int64_t>(record.bytes.size());
  if (length == 0 || record.position < 0) return Misfit(record.replica, "append without bytes or below position 0");

  auto segment = FindSegment(replica.segments, record.segment);
  if (segment != replica.segments.end() && record.position + length <= segment->end_position) {
    return absl::OkStatus();  // carried forward: already there
  }
  if (record.next_offset <= replica.next_offset) {
    return Misfit(record.replica, absl::StrCat("append ends at offset ", record.next_offset.value(),
                                               ", but the log already ends at ", replica.next_offset.value()));
  }
  if (segment == replica.segments.end()) {
    if (record.position != 0 || record.segment.base != replica.next_offset) {
      return Misfit(record.replica,
                    absl::StrCat("append to position ", record.position, " of segment ", record.segment.ToString(),
                                 ", which does not exist; the log ends at ", replica.next_offset.value()));
    }
    if (!replica.segments.empty() && record.segment <= replica.segments.back().id) {
      return Misfit(record.replica, absl::StrCat("segment ", record.segment.ToString(), " does not come after ",
                                                 replica.segments.back().id.ToString()));
    }
    replica.segments.push_back({.id = record.segment, .next_offset = record.segment.base});
    segment = replica.segments.end() - 1;
    segment->max_timestamp_ms = record.max_timestamp_ms;
  } else if (segment != replica.segments.end() - 1 || segment->closed || record.position != segment->end_position) {
    return Misfit(
        record.replica,
        absl::StrCat("append at position ", record.position, " of segment ", record.segment.ToString(),
                     segment->closed || segment != replica.segments.end() - 1 ? ", which is closed" : ", which ends",
                     " at ", segment->end_position));
  }
  segment->crc32c = Crc32cCombine(segment->crc32c, record.crc32c, static_cast<size_t>(length));
  segment->end_position += length;
  segment->next_offset = record.next_offset;
  segment->max_timestamp_ms = std::max(segment->max_timestamp_ms, record.max_timestamp_ms);
  replica.next_offset = record.next_offset;
  if (record.holds == AppendHolds::kData) replica.data_end = record.next_offset;
  if (record.holds == AppendHolds::kUnknown) replica.data_end = ReplicaState::kDataEndUnknown;
  return absl::OkStatus();
}

absl::Status JournalState::ApplyTo(const TruncateRecord& record) {
  auto at = replicas_.find(record.replica);
  if (at == replicas_.end()) return Unknown(record.replica, "truncation");
  ReplicaState& replica = at->second;
  auto keep = FindSegment(replica.segments, record.keep);
  if (keep == replica.segments.end() || record.position < 0 || record.position > keep->end_position) {
    return Misfit(record.replica, absl::StrCat("truncation to position ", record.position, " of segment ",
                                               record.keep.ToString(), ", which does not reach there"));
  }
  const bool whole = record.position == keep->end_position;
  if (whole ? record.next_offset != keep->next_offset || record.crc32c != keep->crc32c
            : record.next_offset >= keep->next_offset || record.next_offset < record.keep.base ||
                  (record.position == 0) != (record.next_offset == record.keep.base)) {
    return Misfit(record.replica,
                  absl::StrCat("truncation to position ", record.position, " of segment ", record.keep.ToString(),
                               " does not fit offset ", record.next_offset.value(), " or its checksum"));
  }
  if (record.next_offset < replica.log_start) {
    return Misfit(record.replica, absl::StrCat("truncation to offset ", record.next_offset.value(),
                                               ", below the log start ", replica.log_start.value()));
  }
  if (record.position > 0) {
    keep->end_position = record.position;
    keep->crc32c = record.crc32c;
    keep->next_offset = record.next_offset;
    keep->max_timestamp_ms = record.max_timestamp_ms;
    ++keep;
  }
  replica.segments.erase(keep, replica.segments.end());
  replica.next_offset = record.next_offset;
  if (replica.data_end > record.next_offset) replica.data_end = ReplicaState::kDataEndUnknown;
  SegmentPosition end;
  if (!replica.segments.empty()) {
    SegmentState& last = replica.segments.back();
    last.closed = true;
    end = {last.id, last.end_position};
  }
  replica.checkpoint = std::min(replica.checkpoint, end);
  return absl::OkStatus();
}

absl::Status JournalState::ApplyTo(const ResetRecord& record) {
  auto at = replicas_.find(record.replica);
  if (at == replicas_.end()) return Unknown(record.replica, "reset");
  if (record.next_offset < Offset(0)) return Misfit(record.replica, "reset to a negative offset");
  ReplicaState& replica = at->second;
  replica.segments.clear();
  replica.log_start = record.next_offset;
  replica.next_offset = record.next_offset;
  replica.data_end = Offset(0);
  replica.checkpoint = {};
  return absl::OkStatus();
}

absl::Status JournalState::ApplyTo(const LogStartRecord& record) {
  auto at = replicas_.find(record.replica);
  if (at == replicas_.end()) return Unknown(record.replica, "log start");
  ReplicaState& replica = at->second;
  if (record.log_start > replica.next_offset) {
    return Misfit(record.replica, absl::StrCat("log start ", record.log_start.value(), " beyond the end of the log, ",
                                               replica.next_offset.value()));
  }
  replica.log_start = std::max(replica.log_start, record.log_start);
  auto first_kept = replica.segments.begin();
  while (first_kept != replica.segments.end() && first_kept + 1 != replica.segments.end() &&
         first_kept->next_offset <= replica.log_start) {
    ++first_kept;
  }
  replica.segments.erase(replica.segments.begin(), first_kept);
  return absl::OkStatus();
}

absl::Status JournalState::ApplyTo(const HardStateRecord& record) {
  auto at = replicas_.find(record.replica);
  if (at == replicas_.end()) return Unknown(record.replica, "hard state");
  HardState& now = at->second.hard_state;
  const HardState& next = record.hard_state;
  if (next.term < now.term) {
    return Misfit(record.replica,
                  absl::StrCat("term ", next.term.value(), " after term ", now.term.value(), " was recorded"));
  }
  if (next.term == now.term && now.voted_for != VoterId{} && next.voted_for != now.voted_for) {
    return Misfit(record.replica, absl::StrCat("a second vote in term ", next.term.value()));
  }
  now = next;
  return absl::OkStatus();
}

absl::Status JournalState::ApplyTo(const RaftConfigRecord& record) {
  auto at = replicas_.find(record.replica);
  if (at == replicas_.end()) return Unknown(record.replica, "Raft configuration");
  at->second.raft_config = record.config;
  return absl::OkStatus();
}

absl::Status JournalState::ApplyTo(const CheckpointRecord& record) {
  auto at = replicas_.find(record.replica);
  if (at == replicas_.end()) return absl::OkStatus();  // dropped while its segments were being synced
  ReplicaState& replica = at->second;
  auto segment = FindSegment(replica.segments, record.segment);
  if (segment == replica.segments.end()) return absl::OkStatus();  // truncated or deleted meanwhile
  // A truncation may have overtaken the sync; what it kept is synced all the same.
  const SegmentPosition reached{record.segment, std::min(record.position, segment->end_position)};
  replica.checkpoint = std::max(replica.checkpoint, reached);
  return absl::OkStatus();
}

absl::Status JournalState::ApplyTo(const CreateRecord& record) {
  auto [at, inserted] = replicas_.try_emplace(record.replica);
  if (inserted) {
    at->second.incarnation = record.incarnation;
  } else if (at->second.incarnation != record.incarnation) {
    return Misfit(record.replica, "created again with another incarnation before it was dropped");
  }
  return absl::OkStatus();
}

absl::Status JournalState::ApplyTo(const DropRecord& record) {
  replicas_.erase(record.replica);
  return absl::OkStatus();
}

}  // namespace sluice::storage
