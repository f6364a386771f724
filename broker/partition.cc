#include "broker/partition.h"

#include <algorithm>
#include <utility>

#include "broker/error.h"
#include "broker/limits.h"
#include "common/check.h"
#include "common/planted_bug.h"
#include "common/text.h"

namespace sluice::broker {
namespace {

/// Of a log that could not be opened: damage lasts, a full disk and the rest may pass.
Reason ReasonOfFailure(const absl::Status& why) {
  if (absl::IsDataLoss(why)) return Reason::kCorruptLog;
  return absl::IsResourceExhausted(why) ? ExhaustedReason(why) : Reason::kNotAvailable;
}

LogSettings LogSettingsOf(const TopicSettings& settings) {
  return {.segment_bytes = settings.segment_bytes, .segment_age = settings.segment_age};
}

}  // namespace

Partition::Partition(const Node& node, Identity identity, Executor& shard, std::unique_ptr<PartitionLog> log)
    : node_(node),
      replica_(identity.replica),
      topic_(std::move(identity.topic)),
      replicas_(std::move(identity.replicas)),
      shard_(shard),
      settings_(identity.settings),
      batch_bytes_max_(settings_.message_bytes_max),
      append_place_(log->log().storage_log().append_place()),
      log_(std::move(log)) {}

Partition::Partition(const Node& node, Identity identity, Executor& shard, const absl::Status& why)
    : node_(node),
      replica_(identity.replica),
      topic_(std::move(identity.topic)),
      replicas_(std::move(identity.replicas)),
      shard_(shard),
      settings_(identity.settings),
      batch_bytes_max_(settings_.message_bytes_max),
      failed_(true),
      stop_reason_(ReasonOfFailure(why)),
      stop_why_(Cat("the partition cannot be opened: ", Message(why))) {}

Partition::Partition(const Node& node, Identity identity, Executor& shard)
    : node_(node),
      replica_(identity.replica),
      topic_(std::move(identity.topic)),
      replicas_(std::move(identity.replicas)),
      shard_(shard),
      settings_(identity.settings),
      batch_bytes_max_(settings_.message_bytes_max),
      remote_(true) {}

Error Partition::Fail(Reason reason, std::string message) const {
  return MakeError(reason, std::move(message), topic_, replica_.partition);
}

Error Partition::NotLeader() const {
  if (remote_) {
    Error error = Fail(Reason::kNotLeader, "this node has no replica of the partition");
    error.leader = node_.addresses.AnyOf(replicas_);
    return error;
  }
  const std::optional<NodeId> leader = log().leader();
  if (!leader.has_value() && log().raft().role() == raft::Role::kLeader) {
    return Fail(Reason::kNotAvailable, "this node begins or ends to lead the partition");
  }
  std::string message =
      leader.has_value() ? "this node does not lead the partition" : "the partition has no leader now";
  if (!log().damage().ok()) message += Cat("; the replica on this node cannot lead: ", Message(log().damage()));
  Error error = Fail(Reason::kNotLeader, std::move(message));
  if (leader.has_value()) error.leader = node_.addresses.ClientAddress(*leader);
  return error;
}

// To clients it is one that does not lead.
Error Partition::FailedHere() const {
  Error error = Fail(Reason::kNotLeader, Cat("this node does not lead the partition: ", stop_why_));
  std::vector<NodeId> others = replicas_;
  std::erase(others, node_.id);
  error.leader = node_.addresses.AnyOf(others);
  return error;
}

Error Partition::ProposalFailed(const absl::Status& status) const {
  if (Planted(PlantedBug::kSayUnknownIsRefused) && (log_ == nullptr || absl::IsUnknown(status))) {
    return Fail(Reason::kNotAvailable, "stopped");
  }
  if (log_ == nullptr) {
    return Fail(Reason::kOutcomeUnknown, "the partition stopped before it was committed");
  }
  if (absl::IsUnavailable(status) && !log().IsLeader()) {
    Error error = NotLeader();
    error.message = std::string(Message(status));
    return error;
  }
  return ProposeError(status, log(), topic_, replica_.partition);
}

Error Partition::ReadFailed(const absl::Status& status, const replication::LogBounds& bounds) const {
  if (absl::IsUnavailable(status) && log_ != nullptr && !stopping_ && !log().IsLeader()) return NotLeader();
  Error error = ReadError(status, bounds, topic_, replica_.partition);
  if (log_ != nullptr && !stopping_ && absl::IsDataLoss(status) && !log().damage().ok()) {
    // For that it has just ceased to lead: another node will, and has what cannot be read here.
    Error elsewhere = NotLeader();
    elsewhere.message = std::move(error.message);
    return elsewhere;
  }
  return error;
}

// What a client must meet before anything is read or written here.
std::optional<Error> Partition::CheckServing(LeaderEpoch client_epoch) const {
  SLUICE_CHECK(shard_.IsCurrent()) << replica_;
  if (failed_ && !stopping_ && OthersAreMajority()) return FailedHere();
  if (stopping_ || failed_) return Fail(stop_reason_, stop_why_);
  if (remote_ || !log().IsLeader()) return NotLeader();
  if (client_epoch.value() != 0 && client_epoch != log().leader_epoch() &&
      !Planted(PlantedBug::kAcceptAnyClientEpoch)) {
    // A client that is ahead knows of an election that this node has not heard of yet.
    return Fail(client_epoch < log().leader_epoch() ? Reason::kStaleLeaderEpoch : Reason::kNotAvailable,
                Cat("leader epoch ", client_epoch, " given, the partition is at ", log().leader_epoch()));
  }
  return std::nullopt;
}

std::optional<Error> Partition::Admit(const PartitionAppend& append) const {
  if (append.lane != nullptr && append.lane->broken && !Planted(PlantedBug::kForgetBrokenSession)) {
    return Fail(Reason::kSequenceBroken,
                "an earlier item of this partition failed on this stream; send one with reset to go on");
  }
  if (auto error = CheckServing(append.leader_epoch)) return error;
  if (append.lane != nullptr && append.lane->unanswered > 0 && append.lane->epoch != log().leader_epoch()) {
    return Fail(Reason::kNotAvailable,
                "the leader changed, and what became of this stream's earlier items is not known yet");
  }
  if (!append.batch.has_value()) {
    return Fail(Reason::kQuota, Cat("appends in flight would pass limits.inflight_bytes, ", node_.memory.bytes_max()));
  }
  if (const auto size = static_cast<int64_t>(append.batch->size_bytes()); size > settings_.message_bytes_max) {
    return Fail(Reason::kMessageTooLarge,
                Cat("a batch of ", size, " bytes; max.message.bytes is ", settings_.message_bytes_max));
  } else if (size > kBatchBytesMax && log().raft().configuration().voters.size() > 1) {
    // A topic that is older than this bound, or had one replica.
    return Fail(Reason::kMessageTooLarge,
                Cat("a batch of ", size, " bytes; nodes send each other at most ", kBatchBytesMax));
  }
  if (node_.disk.refusing()) {
    return Fail(Reason::kDiskFull,
                Cat("the disk has ", node_.disk.free_bytes(), " bytes free; appends are refused below ",
                    node_.disk.free_low(), " until there are ", node_.disk.free_high()));
  }
  return NoRoomForMajority();
}

// What such replicas are sent they leave, so it would wait here for room there, its outcome unknown meanwhile.
std::optional<Error> Partition::NoRoomForMajority() const {
  if (node_.full == nullptr || !node_.full->any()) return std::nullopt;
  const raft::Configuration& members = log().raft().configuration();
  std::vector<NodeId> others;
  for (const VoterId& voter : members.voters) {
    if (voter.node != node_.id) others.push_back(voter.node);
  }
  const std::vector<NodeId> full = node_.full->Among(others);
  if (members.voters.size() - full.size() >= members.Quorum()) return std::nullopt;
  return Fail(Reason::kDiskFull, Cat("not enough replicas can take it; ", DescribeFull(full)));
}

void Partition::Append(PartitionAppend append) {
  if (!held_.empty() || MayWaitForLeader()) return Hold(std::move(append));
  AppendNow(std::move(append));
}

// Where the last wait ran out with nobody to lead, there may be nobody for long: who comes then is told at once. A
// leader that was elected since then serves in a moment.
bool Partition::MayWaitForLeader() const {
  if (log_ == nullptr || stopping_ || !log().AwaitsLeader()) return false;
  const raft::Raft& raft = log().raft();
  return !awaits_settled_ || (raft.role() == raft::Role::kLeader && !raft.transferring());
}

void Partition::Hold(PartitionAppend append) {
  held_.push_back(std::move(append));
  if (held_.size() > 1) return;
  held_timer_ = shard_.PostAfter(kLeaderWaitMax, [weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->ReleaseHeld();
  });
  if (std::exchange(awaits_settled_, true)) return;
  log().WhenLeaderSettled([weak = weak_from_this()] {
    const auto self = weak.lock();
    if (self == nullptr) return;
    self->awaits_settled_ = false;
    self->ReleaseHeld();
  });
}

void Partition::ReleaseHeld() {
  if (held_.empty()) return;
  shard_.Cancel(held_timer_);
  for (PartitionAppend& append : std::exchange(held_, {})) AppendNow(std::move(append));
}

void Partition::AppendNow(PartitionAppend append) {
  if (append.reset && append.lane != nullptr) {
    append.lane->broken = false;
    append.lane->unanswered = 0;
    ++append.lane->resets;
  }
  if (auto error = Admit(append)) {
    if (append.lane != nullptr) append.lane->broken = true;
    ++stats_.produce_errors;
    append.hold = {};
    Answer<ProduceOutcome>(std::move(append.done), *std::move(error));
    return;
  }
  Propose(std::move(append));
}

void Partition::Propose(PartitionAppend append) {
  int64_t append_time_ms = -1;
  if (settings_.timestamp_type == TimestampType::kLogAppendTime) {
    append_time_ms = absl::ToUnixMillis(node_.clock.Wall());
    append.batch->SetLogAppendTime(append_time_ms);
  }
  const auto size = static_cast<int64_t>(append.batch->size_bytes());
  const int32_t records = append.batch->view().record_count();
  const Offset end_before = log().bounds().log_end;
  const uint64_t resets = append.lane != nullptr ? append.lane->resets : 0;
  auto on_done = [self = shared_from_this(), lane = append.lane, resets, hold = std::move(append.hold),
                  done = std::move(append.done), append_time_ms, size,
                  records](absl::StatusOr<replication::Committed> committed) mutable {
    hold = {};
    if (lane != nullptr && lane->resets == resets && lane->unanswered > 0) --lane->unanswered;
    if (!committed.ok()) {
      if (lane != nullptr && lane->resets == resets) lane->broken = true;
      ++self->stats_.produce_errors;
      done(self->ProposalFailed(committed.status()));
      return;
    }
    ++self->stats_.produced_batches;
    self->stats_.produced_records += records;
    self->stats_.produced_bytes += size;
    done(ProduceAck{.base_offset = committed->base_offset,
                    .next_offset = committed->last_offset + 1,
                    .leader_epoch = committed->leader_epoch,
                    .log_append_time_ms = append_time_ms});
  };
  log().Propose(*std::move(append.batch), append.expected_base_offset, std::move(on_done));
  if (append.lane == nullptr) return;
  // A refusal is answered later, but the session's next item may come before that: it must not overtake. An append that
  // was taken has its place by now; should it fail yet, those behind it in the same epoch fail with it. What was
  // refused counts as unanswered too, but a broken lane takes nothing before a reset.
  if (log().bounds().log_end == end_before) append.lane->broken = true;
  ++append.lane->unanswered;
  append.lane->epoch = log().leader_epoch();
}

void Partition::Read(Offset offset, int64_t bytes_max, LeaderEpoch client_epoch, Callback<PartitionRead> done) {
  PartitionRead read;
  read.next_offset = offset;
  if (auto error = CheckServing(client_epoch)) {
    read.error = std::move(error);
    return Answer(std::move(done), std::move(read));
  }
  read.bounds = log().bounds();
  read.leader_epoch = log().leader_epoch();
  if (offset == read.bounds.high_watermark && offset >= read.bounds.log_start) {
    return Answer(std::move(done), std::move(read));  // nothing to read yet: no need to ask the log
  }
  ++stats_.fetches;
  log().Read({.offset = offset, .bytes_max = bytes_max},
             [self = shared_from_this(), read = std::move(read),
              done = std::move(done)](absl::StatusOr<replication::ReadResult> result) mutable {
               if (!result.ok()) {
                 const auto bounds = self->log_ != nullptr ? self->log().bounds() : read.bounds;
                 read.error = self->ReadFailed(result.status(), bounds);
               } else {
                 read.batches = std::move(result->batches);
                 if (Planted(PlantedBug::kSkipABatch) && read.batches.size() > 1)
                   read.batches.erase(read.batches.begin());
                 read.next_offset = result->next_offset;
                 read.bounds = result->bounds;
                 for (const auto& batch : read.batches) {
                   self->stats_.fetched_bytes += static_cast<int64_t>(batch.size_bytes());
                 }
               }
               done(std::move(read));
             });
}

replication::ReplicatedLog::WaitId Partition::WaitForCommit(Offset offset, absl::AnyInvocable<void()> wake) {
  if (log_ == nullptr || stopping_) {
    shard_.Post(std::move(wake));
    return 0;
  }
  if (!log().IsLeader()) {
    // The log wakes those that wait when leadership is lost; it has been already.
    shard_.Post(std::move(wake));
    return 0;
  }
  return log().WaitForCommit(offset, std::move(wake));
}

void Partition::CancelWait(replication::ReplicatedLog::WaitId id) {
  if (id != 0 && log_ != nullptr) log().CancelWait(id);
}

void Partition::ListOffsets(const ListOffsetsItem& item, Callback<ListOffsetsOutcome> done) {
  ListOffsetsOutcome outcome;
  outcome.topic = topic_;
  outcome.partition = replica_.partition;
  if (auto error = CheckServing(LeaderEpoch(0))) {
    outcome.error = std::move(error);
    return Answer(std::move(done), std::move(outcome));
  }
  outcome.leader_epoch = log().leader_epoch();
  log().ReadBarrier([self = shared_from_this(), outcome = std::move(outcome), item,
                     done = std::move(done)](absl::Status status) mutable {
    // The barrier may be confirmed in the same turn in which another leader is heard of: the answer would be right, but
    // what it says of the epoch would be the other one's.
    const bool leads = self->log_ != nullptr && self->log().IsLeader();
    if (status.ok() && leads && self->log().leader_epoch() == outcome.leader_epoch) {
      return self->AnswerOffset(std::move(outcome), item, std::move(done));
    }
    if (status.ok()) status = absl::UnavailableError("this node leads the partition no more");
    outcome.error = self->ReadFailed(status, {});
    done(std::move(outcome));
  });
}

// Behind the barrier, where what the log says is no older than the question.
void Partition::AnswerOffset(ListOffsetsOutcome outcome, const ListOffsetsItem& item,
                             Callback<ListOffsetsOutcome> done) {
  const replication::LogBounds bounds = log().bounds();
  // Not what is appended and not committed yet: that cannot be read. Who asks because the outcome of its own append is
  // unknown to it would find nothing there, and write it once more behind itself. While there is such, an append that
  // expects this end is refused, and the end asked for again.
  outcome.log_end = bounds.high_watermark;
  switch (item.kind) {
    case ListOffsetsItem::Kind::kLatest:
      outcome.offset = bounds.high_watermark;
      break;
    case ListOffsetsItem::Kind::kEarliest:
      outcome.offset = bounds.log_start;
      break;
    case ListOffsetsItem::Kind::kLatestData:
      outcome.offset = log().last_data_offset_end();
      break;
    case ListOffsetsItem::Kind::kTimestamp:
      log().FindTimestamp(item.timestamp_ms,
                          [self = shared_from_this(), bounds, outcome = std::move(outcome), done = std::move(done)](
                              absl::StatusOr<std::optional<replication::TimestampOffset>> found) mutable {
                            if (!found.ok()) {
                              outcome.error = self->ReadFailed(found.status(), bounds);
                            } else if (found->has_value()) {
                              outcome.offset = (*found)->offset;
                              outcome.timestamp_ms = (*found)->timestamp_ms;
                            }
                            done(std::move(outcome));
                          });
      return;
    default:
      outcome.error = Fail(Reason::kInvalidArgument, Cat("kind ", static_cast<int>(item.kind), " is not known"));
  }
  done(std::move(outcome));
}

void Partition::DeleteRecords(Offset before, Callback<DeleteRecordsOutcome> done) {
  DeleteRecordsOutcome outcome;
  outcome.topic = topic_;
  outcome.partition = replica_.partition;
  outcome.error = CheckServing(LeaderEpoch(0));
  if (!outcome.error.has_value() && before < Offset(-1)) {
    outcome.error = Fail(Reason::kInvalidArgument, Cat("before_offset ", before, " is below -1"));
  }
  if (outcome.error.has_value()) return Answer(std::move(done), std::move(outcome));
  const bool all = before == Offset(-1) || Planted(PlantedBug::kDeleteToEnd);
  const Offset target = all ? log().bounds().high_watermark : before;
  log().AdvanceLogStart(target, [self = shared_from_this(), outcome = std::move(outcome),
                                 done = std::move(done)](absl::StatusOr<Offset> log_start) mutable {
    if (log_start.ok()) {
      outcome.log_start = *log_start;
    } else if (absl::IsOutOfRange(log_start.status()) && self->log_ != nullptr) {
      outcome.error = ReadError(log_start.status(), self->log().bounds(), self->topic_, self->replica_.partition);
    } else {
      outcome.error = self->ProposalFailed(log_start.status());
    }
    done(std::move(outcome));
  });
}

void Partition::ApplySettings(const TopicSettings& settings) {
  settings_ = settings;
  // Batches of an earlier, larger bound are still there.
  batch_bytes_max_ = std::max(batch_bytes_max_.load(), settings.message_bytes_max);
  if (log_ != nullptr && !stopping_) log_->Configure(LogSettingsOf(settings));
}

void Partition::EnforceRetention(absl::Duration clock_ahead) {
  if (log_ == nullptr || stopping_ || retention_running_ || !log().IsLeader()) return;
  retention_running_ = true;
  std::optional<absl::Duration> age = settings_.retention_age;
  if (age.has_value()) *age += clock_ahead;
  // A failure is met again at the next tick.
  log_->ApplyRetention({.age = age, .bytes = settings_.retention_bytes},
                       [self = shared_from_this()](absl::StatusOr<Offset>) { self->retention_running_ = false; });
}

void Partition::CampaignAgain(absl::Duration next) {
  if (log_ == nullptr || stopping_ || log().leader().has_value() || log().raft().role() == raft::Role::kLeader) return;
  (void)log().Campaign();  // where it may not, others will
  // From then on the election time-out does as well.
  if (next > absl::Seconds(1)) return;
  shard_.PostAfter(next, [weak = weak_from_this(), next] {
    if (const auto self = weak.lock()) self->CampaignAgain(2 * next);
  });
}

absl::Status Partition::TransferLeadership(NodeId to) {
  if (log_ == nullptr || stopping_ || !log().IsLeader()) {
    return absl::UnavailableError("this node does not lead the partition");
  }
  for (const VoterId& voter : log().raft().configuration().voters) {
    if (voter.node == to) return log().TransferLeadership(voter);
  }
  return absl::NotFoundError(Cat("node ", to, " has no voting replica of the partition"));
}

void Partition::GiveUpWaiting() {
  if (log_ != nullptr) log().Stop();
}

void Partition::Stop(Reason reason, std::string why, absl::AnyInvocable<void()> done) {
  SLUICE_CHECK(shard_.IsCurrent() && !stopping_) << replica_;
  stopping_ = true;
  stop_reason_ = reason;
  stop_why_ = std::move(why);
  ReleaseHeld();
  if (log_ == nullptr) return shard_.Post(std::move(done));
  log_->Stop([self = shared_from_this(), done = std::move(done)]() mutable {
    self->log_.reset();
    done();
  });
}

}  // namespace sluice::broker
