#include "storage/journal_pins.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace sluice::storage {

namespace {

// First byte of the segment that is not known to be in its file.
int64_t NeededFrom(const ReplicaState& state, SegmentId segment) {
  if (segment < state.checkpoint.segment) return INT64_MAX;
  return segment == state.checkpoint.segment ? state.checkpoint.position : 0;
}

}  // namespace

void JournalPins::Count(uint64_t file, int by) {
  auto at = files_.try_emplace(file, 0).first;
  at->second += by;
  if (at->second == 0) files_.erase(at);
}

void JournalPins::OnAppend(const AppendRecord& record, const ReplicaState& state, uint64_t file, uint64_t ordinal) {
  std::vector<JournalPin>& pins = pins_[record.replica];
  const int64_t begin = std::max(record.position, NeededFrom(state, record.segment));
  const int64_t end = record.position + static_cast<int64_t>(record.bytes.size());
  if (begin >= end) return;
  if (!pins.empty()) {
    JournalPin& last = pins.back();
    if (last.segment == record.segment && last.file == file && last.end == begin) {
      last.end = end;
      return;
    }
    if (record.segment < last.segment || (record.segment == last.segment && begin < last.end)) {
      Subtract(pins, record.segment, begin, end);
    }
  }
  const JournalPin pin{record.segment, begin, end, file, ordinal};
  auto at = std::lower_bound(pins.begin(), pins.end(), pin, [](const JournalPin& a, const JournalPin& b) {
    return a.segment != b.segment ? a.segment < b.segment : a.begin < b.begin;
  });
  if (at != pins.begin()) {
    JournalPin& before = *(at - 1);
    if (before.segment == pin.segment && before.file == file && before.end == begin) {
      before.end = end;
      return;
    }
  }
  pins.insert(at, pin);
  Count(file, 1);
}

void JournalPins::Subtract(std::vector<JournalPin>& pins, SegmentId segment, int64_t begin, int64_t end) {
  std::vector<JournalPin> left;
  for (const JournalPin& pin : pins) {
    if (pin.segment != segment || pin.end <= begin || pin.begin >= end) {
      left.push_back(pin);
      continue;
    }
    Count(pin.file, -1);
    if (pin.begin < begin) {
      left.push_back({segment, pin.begin, begin, pin.file, pin.first_record});
      Count(pin.file, 1);
    }
    if (pin.end > end) {
      left.push_back({segment, end, pin.end, pin.file, pin.first_record});
      Count(pin.file, 1);
    }
  }
  pins = std::move(left);
}

void JournalPins::Trim(const ReplicaId& replica, const ReplicaState* state) {
  auto at = pins_.find(replica);
  if (at == pins_.end()) return;
  std::vector<JournalPin>& pins = at->second;
  pins.erase(std::remove_if(pins.begin(), pins.end(),
                            [&](JournalPin& pin) {
                              const SegmentState* segment = state == nullptr ? nullptr : state->Find(pin.segment);
                              if (segment != nullptr) {
                                pin.begin = std::max(pin.begin, NeededFrom(*state, pin.segment));
                                pin.end = std::min(pin.end, segment->end_position);
                                if (pin.begin < pin.end) return false;
                              }
                              Count(pin.file, -1);
                              return true;
                            }),
             pins.end());
  if (state == nullptr) pins_.erase(at);
}

void JournalPins::TrimAll(const JournalState& state) {
  std::vector<ReplicaId> replicas;
  for (const auto& [replica, pins] : pins_) replicas.push_back(replica);
  for (const ReplicaId& replica : replicas) Trim(replica, state.Find(replica));
}

std::vector<ReplicaId> JournalPins::HoldersOf(uint64_t file) const {
  std::vector<ReplicaId> holders;
  if (!IsPinned(file)) return holders;
  for (const auto& [replica, pins] : pins_) {
    if (std::any_of(pins.begin(), pins.end(), [file](const JournalPin& pin) { return pin.file == file; })) {
      holders.push_back(replica);
    }
  }
  return holders;
}

const std::vector<JournalPin>& JournalPins::Of(const ReplicaId& replica) const {
  static const std::vector<JournalPin> kNone;
  auto at = pins_.find(replica);
  return at == pins_.end() ? kNone : at->second;
}

absl::Status JournalPins::CheckCovers(const JournalState& state) const {
  for (const auto& [id, replica] : state.replicas()) {
    const std::vector<JournalPin>& pins = Of(id);
    for (const SegmentState& segment : replica.segments) {
      int64_t reached = NeededFrom(replica, segment.id);
      for (const JournalPin& pin : pins) {
        if (pin.segment == segment.id && pin.begin <= reached) reached = std::max(reached, pin.end);
      }
      if (reached < segment.end_position) {
        return absl::DataLossError(absl::StrCat("replica ", id.ToString(), ", segment ", segment.id.ToString(),
                                                ": bytes [", reached, ", ", segment.end_position,
                                                ") are neither below its checkpoint nor in any journal file; is one "
                                                "before this missing?"));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace sluice::storage
