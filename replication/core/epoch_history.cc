#include "replication/core/epoch_history.h"

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/text.h"

namespace sluice::raft {

namespace {

// The epoch that covers `offset`: the last one that starts at or below it.
auto Covering(const std::vector<EpochStart>& epochs, Offset offset) {
  return std::upper_bound(epochs.begin(), epochs.end(), offset,
                          [](Offset o, const EpochStart& e) { return o < e.start; });
}

}  // namespace

absl::StatusOr<EpochHistory> EpochHistory::Make(Offset start, Offset end, BaseEpoch base,
                                                std::vector<EpochStart> epochs) {
  if (start.value() < 0 || start > end) {
    return absl::InvalidArgumentError(Cat("a log from ", start.value(), " to ", end.value()));
  }
  for (size_t i = 0; i < epochs.size(); ++i) {
    const EpochStart& e = epochs[i];
    const bool ascends = i == 0 || (epochs[i - 1].epoch < e.epoch && epochs[i - 1].start < e.start);
    if (!ascends || e.epoch.value() <= 0 || e.start.value() < 0 || e.start >= end) {
      return absl::InvalidArgumentError(Cat("epoch ", e.epoch.value(), " from offset ", e.start.value(),
                                            " does not fit a log that ends at ", end.value()));
    }
  }
  if (start < end && (epochs.empty() || epochs.front().start > start)) {
    return absl::InvalidArgumentError(Cat("no epoch is known at the log start ", start.value()));
  }
  EpochHistory history;
  history.start_ = start;
  history.end_ = end;
  history.base_ = base;
  history.epochs_ = std::move(epochs);
  return history;
}

std::optional<LeaderEpoch> EpochHistory::EpochAt(Offset offset) const {
  if (offset < start_ || offset >= end_) return std::nullopt;
  return std::prev(Covering(epochs_, offset))->epoch;
}

std::optional<LeaderEpoch> EpochHistory::EpochBefore(Offset end) const {
  if (end < start_ || end > end_) return std::nullopt;
  if (end.value() == 0) return LeaderEpoch(0);
  const auto after = Covering(epochs_, end - 1);
  if (after != epochs_.begin()) return std::prev(after)->epoch;
  if (base_.exact.value() == 0) return std::nullopt;
  return base_.exact;
}

LogPlace EpochHistory::LastAtMost() const {
  return {EpochBefore(end_).value_or(base_.at_most), end_};
}

BaseEpoch EpochHistory::base() const {
  const std::optional<LeaderEpoch> exact = EpochBefore(start_);
  return exact ? BaseEpoch{*exact, *exact} : base_;
}

std::optional<LogPlace> EpochHistory::EndOf(LeaderEpoch epoch) const {
  const auto after = std::upper_bound(epochs_.begin(), epochs_.end(), epoch,
                                      [](LeaderEpoch x, const EpochStart& e) { return x < e.epoch; });
  if (after == epochs_.begin()) return std::nullopt;
  const LogPlace place{std::prev(after)->epoch, after == epochs_.end() ? end_ : after->start};
  if (place.end < start_) return std::nullopt;
  return place;
}

void EpochHistory::Append(LeaderEpoch epoch, Offset next_offset) {
  SLUICE_CHECK(next_offset > end_) << "a batch up to " << next_offset << " at " << end_;
  SLUICE_CHECK(epochs_.empty() || epochs_.back().epoch <= epoch) << "epoch " << epoch << " goes back";
  if (epochs_.empty() || epochs_.back().epoch != epoch) epochs_.push_back({epoch, end_});
  end_ = next_offset;
}

void EpochHistory::Truncate(Offset new_end) {
  SLUICE_CHECK(new_end >= start_ && new_end <= end_) << new_end << " outside " << start_ << " to " << end_;
  end_ = new_end;
  while (!epochs_.empty() && epochs_.back().start >= new_end) epochs_.pop_back();
}

void EpochHistory::SetStart(Offset start) {
  if (start <= start_) return;
  SLUICE_CHECK(start <= end_) << "log start " << start << " beyond " << end_;
  const LeaderEpoch before = EpochBefore(start).value_or(LeaderEpoch(0));
  base_ = {before, before};
  start_ = start;
  // Of those that begin below the start, the last one tells the epoch at (or just before) it.
  const auto covering = Covering(epochs_, start);
  if (covering != epochs_.begin()) epochs_.erase(epochs_.begin(), std::prev(covering));
}

void EpochHistory::Reset(Offset start, BaseEpoch base) {
  start_ = end_ = start;
  base_ = base;
  epochs_.clear();
}

}  // namespace sluice::raft
