#include "tests/simulation/raft/model_disk.h"

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/text.h"

namespace sluice::raft_simulation {

namespace {

absl::Status Refused(std::string why) {
  return absl::FailedPreconditionError(why);
}

struct Applier {
  DiskImage& image;
  int64_t keep_below_start;

  absl::Status operator()(const raft::HardState& state) const {
    image.hard_state = state;
    return absl::OkStatus();
  }
  absl::Status operator()(const TruncateTo& to) const {
    if (to.end < image.log_start || to.end > image.log_end) {
      return Refused(Cat("cut at ", to.end, " a log from ", image.log_start, " to ", image.log_end));
    }
    const record::Batch* const inside = image.At(to.end);
    if (inside != nullptr && inside->base_offset() != to.end) return Refused(Cat("cut inside a batch at ", to.end));
    while (!image.batches.empty() && image.batches.back().base_offset() >= to.end) image.batches.pop_back();
    image.log_end = to.end;
    return absl::OkStatus();
  }
  absl::Status operator()(const StateBlob& blob) const {
    image.raft_state = blob.bytes;
    return absl::OkStatus();
  }
  absl::Status operator()(const record::Batch& batch) const {
    if (batch.base_offset() != image.log_end) {
      return Refused(Cat("a batch at ", batch.base_offset(), " after a log to ", image.log_end));
    }
    if (!image.batches.empty() && batch.epoch() < image.batches.back().epoch()) {
      return Refused(Cat("epoch ", batch.epoch(), " after ", image.batches.back().epoch()));
    }
    image.batches.push_back(batch);
    image.log_end = batch.next_offset();
    return absl::OkStatus();
  }
  absl::Status operator()(const StartAt& at) const {
    if (at.log_start > image.log_end) return Refused(Cat("log start ", at.log_start, " beyond ", image.log_end));
    image.log_start = std::max(image.log_start, at.log_start);
    const Offset keep = image.log_start - keep_below_start;
    const auto first = std::find_if(image.batches.begin(), image.batches.end(),
                                    [&](const record::Batch& b) { return b.next_offset() > keep; });
    image.batches.erase(image.batches.begin(), first);
    return absl::OkStatus();
  }
  absl::Status operator()(const ResetTo& to) const {
    image.batches.clear();
    image.log_start = image.log_end = to.base;
    return absl::OkStatus();
  }
};

bool IsCheckpoint(const DiskOp& op) {
  return std::holds_alternative<StartAt>(op) || std::holds_alternative<ResetTo>(op);
}

}  // namespace

absl::Status DiskImage::Apply(const DiskOp& op, int64_t keep_below_start) {
  return std::visit(Applier{*this, keep_below_start}, op);
}

const record::Batch* DiskImage::At(Offset offset) const {
  const auto found = std::lower_bound(batches.begin(), batches.end(), offset,
                                      [](const record::Batch& b, Offset o) { return b.last_offset() < o; });
  return found != batches.end() && found->base_offset() <= offset ? &*found : nullptr;
}

bool DiskImage::Holds(const record::Batch& batch) const {
  if (batch.next_offset() <= log_start) return true;
  const record::Batch* const found = At(batch.base_offset());
  return found != nullptr && found->base_offset() == batch.base_offset() && found->epoch() == batch.epoch() &&
         found->bytes() == batch.bytes();
}

std::vector<raft::EpochStart> DiskImage::Epochs() const {
  std::vector<raft::EpochStart> epochs;
  for (const record::Batch& batch : batches) {
    if (epochs.empty() || epochs.back().epoch != batch.epoch()) epochs.push_back({batch.epoch(), batch.base_offset()});
  }
  return epochs;
}

absl::Status ModelDisk::Write(std::vector<DiskOp> ops) {
  for (const DiskOp& op : ops) {
    if (const absl::Status applied = appended_.Apply(op, keep_below_start_); !applied.ok()) return applied;
  }
  pending_.push_back({++last_write_, std::move(ops)});
  return absl::OkStatus();
}

void ModelDisk::Harden(const DiskOp& op) {
  const absl::Status applied = durable_.Apply(op, keep_below_start_);
  SLUICE_CHECK(applied.ok()) << applied.ToString();
  since_checkpoint_.push_back(op);
  if (IsCheckpoint(op)) {
    checkpoint_ = durable_;
    since_checkpoint_.clear();
  }
}

void ModelDisk::MakeDurable(uint64_t number) {
  for (; !pending_.empty() && pending_.front().number <= number; pending_.pop_front()) {
    for (const DiskOp& op : pending_.front().ops) Harden(op);
  }
}

ModelDisk::Lost ModelDisk::Crash(simulation::SimRandom& random) {
  Lost lost;
  const size_t kept = random.Below(pending_.size() + 1);
  if (kept > 0) MakeDurable(pending_[kept - 1].number);
  lost.writes = pending_.size();
  if (!pending_.empty()) {
    const std::vector<DiskOp>& ops = pending_.front().ops;
    const size_t part = random.Below(ops.size());
    for (size_t i = 0; i < part; ++i) Harden(ops[i]);
    lost.torn = part > 0;
  }
  pending_.clear();
  appended_ = durable_;
  return lost;
}

std::vector<record::Batch> ModelDisk::Damage(simulation::SimRandom& random, size_t most) {
  SLUICE_CHECK(pending_.empty()) << "damage is found after a crash";
  const size_t lost = random.Below(std::min(most, since_checkpoint_.size()) + 1);
  const DiskImage before = std::move(durable_);
  durable_ = checkpoint_;
  since_checkpoint_.resize(since_checkpoint_.size() - lost);
  for (const DiskOp& op : since_checkpoint_) {
    const absl::Status applied = durable_.Apply(op, keep_below_start_);
    SLUICE_CHECK(applied.ok()) << applied.ToString();
  }
  appended_ = durable_;
  std::vector<record::Batch> gone;
  for (const record::Batch& batch : before.batches) {
    if (!durable_.Holds(batch)) gone.push_back(batch);
  }
  return gone;
}

}  // namespace sluice::raft_simulation
