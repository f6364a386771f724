#include "storage/journal_carry.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "storage/journal_replay.h"

namespace sluice::storage {
namespace {

using ByPosition = std::map<int64_t, AppendRecord>;

int64_t EndOf(const AppendRecord& append) {
  return append.position + static_cast<int64_t>(append.bytes.size());
}

/// What comes later stands: an append that overlaps an earlier one is that one again, or follows a truncation that took
/// it back.
void Take(const AppendRecord& append, ByPosition* appends) {
  auto at = appends->lower_bound(append.position);
  if (at != appends->begin() && EndOf(std::prev(at)->second) > append.position) --at;
  while (at != appends->end() && at->first < EndOf(append)) at = appends->erase(at);
  appends->emplace(append.position, append);
}

}  // namespace

absl::StatusOr<std::vector<AppendRecord>> ReadPinnedAppends(FileSystem& fs, const JournalFileInfo& file,
                                                            const ReplicaId& replica,
                                                            const std::vector<JournalPin>& pins) {
  std::map<SegmentId, ByPosition> segments;
  for (const JournalPin& pin : pins) {
    if (pin.file != file.sequence || segments.contains(pin.segment)) continue;
    ByPosition& appends = segments[pin.segment];
    SLUICE_RETURN_IF_ERROR(ReadAppends(fs, file, replica, pin.segment, [&appends](const AppendRecord& append) {
      Take(append, &appends);
      return absl::OkStatus();
    }));
  }
  std::vector<AppendRecord> found;
  for (const JournalPin& pin : pins) {
    if (pin.file != file.sequence) continue;
    int64_t reached = pin.begin;
    for (const auto& [position, append] : segments[pin.segment]) {
      if (EndOf(append) <= pin.begin || position >= pin.end) continue;
      if (position <= reached) reached = EndOf(append);
      // One append may hold the end of a pin and the begin of the next.
      const bool again =
          !found.empty() && found.back().segment == append.segment && found.back().position == append.position;
      if (!again) found.push_back(append);
    }
    if (reached < pin.end) {
      return absl::DataLossError(absl::StrCat(file.path, ": bytes [", reached, ", ", pin.end, ") of segment ",
                                              pin.segment.ToString(), " of replica ", replica.ToString(),
                                              " are not there any more"));
    }
  }
  return found;
}

}  // namespace sluice::storage
