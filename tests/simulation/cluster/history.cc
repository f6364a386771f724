#include "tests/simulation/cluster/history.h"

#include <algorithm>
#include <charconv>

#include "common/crc32c.h"
#include "common/record/record.h"
#include "common/text.h"

namespace sluice::cluster_simulation {

std::string_view RuleName(Rule rule) {
  switch (rule) {
    case Rule::kAcknowledgedStays:
      return "acknowledged records stay";
    case Rule::kWrittenOnce:
      return "every value is written at most once";
    case Rule::kRefusedNever:
      return "what was refused is never written";
    case Rule::kNoPhantom:
      return "nothing is read that nobody sent";
    case Rule::kOrderOfSession:
      return "a session's items keep their order";
    case Rule::kOrderOfTime:
      return "what is sent later stands behind what was acknowledged";
    case Rule::kFailedSessionStops:
      return "behind a failed item nothing is written without a reset";
    case Rule::kCompareAndAppend:
      return "compare and append writes where it says";
    case Rule::kContentNeverChanges:
      return "an offset's content never changes";
    case Rule::kBatchesTile:
      return "batches tile";
    case Rule::kOnlyCommittedSeen:
      return "consumers see only what is committed";
    case Rule::kNothingGoesBack:
      return "nothing goes back";
    case Rule::kOneLeaderPerEpoch:
      return "one leader per epoch";
    case Rule::kLogStartOnlyAsAsked:
      return "nothing is deleted that nobody asked to delete";
    case Rule::kTopicsAsAnswered:
      return "topics are as their changes were answered";
    case Rule::kReplicasEqual:
      return "replicas are equal";
    case Rule::kReplicasAsPlaced:
      return "replicas are where they were placed";
    case Rule::kRacksSpread:
      return "replicas are spread over racks";
    case Rule::kClusterAsItIs:
      return "the cluster knows its nodes";
    case Rule::kVotesKept:
      return "group 0 keeps its votes";
    case Rule::kFeatureLevel:
      return "the feature level is one that all nodes support";
    case Rule::kOnlyMembersJoin:
      return "only members are let in";
    case Rule::kNodeStarts:
      return "a node starts";
    case Rule::kAnswersOnce:
      return "every call is answered once";
    case Rule::kLiveness:
      return "in quiet times everything works again";
  }
  return "unknown rule";
}

std::string PartitionKey::ToString() const {
  return Cat(topic, "/", partition);
}

std::string ValueText(int64_t value, int32_t record) {
  return Cat(value, ".", record, ":");
}

void History::Fail(Rule rule, std::string what) {
  if (!violation_) violation_ = Violation{rule, std::move(what)};
}

// ---- Producers

const Attempt& History::OnSend(Attempt attempt) {
  attempt.value = static_cast<int64_t>(attempts_.size()) + 1;
  attempt.acknowledged_before = AcknowledgedEnd(attempt.key);
  return attempts_.emplace(attempt.value, std::move(attempt)).first->second;
}

void History::OnAcknowledged(int64_t value, Offset base, Offset next, LeaderEpoch epoch, NodeId by) {
  Attempt& attempt = attempts_.at(value);
  if (attempt.state != Attempt::State::kOpen) {
    return Fail(Rule::kAnswersOnce, Cat("value ", value, " was answered before"));
  }
  attempt.state = Attempt::State::kDone;
  ++acknowledged_;
  Partition& partition = partitions_[attempt.key];
  if (next - base != attempt.records) {
    Fail(Rule::kAcknowledgedStays,
         Cat("value ", value, " has ", attempt.records, " records and was acknowledged as ", base, " to ", next));
  }
  OnEpoch(attempt.key, epoch, by);
  if (attempt.epoch != LeaderEpoch(0) && attempt.epoch != epoch) {
    Fail(Rule::kNothingGoesBack, Cat("value ", value, " was meant for epoch ", attempt.epoch,
                                     " and acknowledged in epoch ", epoch, " of ", attempt.key.ToString()));
  }
  const bool was_seen = attempt.base != Offset(-1);
  if (was_seen && attempt.base != base) {
    Fail(Rule::kAcknowledgedStays, Cat("value ", value, " was seen at ", attempt.base, " of ", attempt.key.ToString(),
                                       " and acknowledged at ", base));
  }
  if (!was_seen) {
    // What somebody saw there, or was told to be there, cannot be this.
    auto after = partition.seen.upper_bound(next - 1);
    if (after != partition.seen.begin() && std::prev(after)->second.next > base) {
      Fail(Rule::kContentNeverChanges, Cat("value ", value, " was acknowledged at ", base, " of ",
                                           attempt.key.ToString(), ", where another batch was seen"));
    }
    OnWritten(attempt, base);
  }
  const auto [at, fresh] = partition.acknowledged.emplace(base, value);
  if (!fresh) {
    Fail(Rule::kAcknowledgedStays, Cat("values ", at->second, " and ", value, " were both acknowledged at ", base,
                                       " of ", attempt.key.ToString()));
  }
  partition.acknowledged_end = std::max(partition.acknowledged_end, next);
}

void History::OnRefused(int64_t value, bool by_node) {
  Attempt& attempt = attempts_.at(value);
  if (attempt.state != Attempt::State::kOpen) {
    return Fail(Rule::kAnswersOnce, Cat("value ", value, " was answered before"));
  }
  attempt.state = Attempt::State::kRefused;
  if (attempt.base != Offset(-1)) {
    return Fail(Rule::kRefusedNever,
                Cat("value ", value, " was seen at ", attempt.base, " of ", attempt.key.ToString(), ", then refused"));
  }
  if (!by_node) return;
  Lane& lane = lanes_[{attempt.session, attempt.key}];
  const auto at = lane.refused_first.emplace(attempt.resets, attempt.sequence).first;
  at->second = std::min(at->second, attempt.sequence);
  CheckLane(attempt, lane);
}

void History::OnUnknown(int64_t value) {
  Attempt& attempt = attempts_.at(value);
  if (attempt.state != Attempt::State::kOpen) {
    return Fail(Rule::kAnswersOnce, Cat("value ", value, " was answered before"));
  }
  attempt.state = Attempt::State::kUnknown;
  ++unknown_;
}

void History::OnWritten(Attempt& attempt, Offset base) {
  attempt.base = base;
  if (attempt.expected && *attempt.expected != base) {
    Fail(Rule::kCompareAndAppend, Cat("value ", attempt.value, " expected ", *attempt.expected, " in ",
                                      attempt.key.ToString(), " and stands at ", base));
  }
  if (base < attempt.acknowledged_before) {
    Fail(Rule::kOrderOfTime, Cat("value ", attempt.value, " stands at ", base, " of ", attempt.key.ToString(),
                                 "; when it was sent, what was acknowledged ended at ", attempt.acknowledged_before));
  }
  Lane& lane = lanes_[{attempt.session, attempt.key}];
  const auto at = lane.written.emplace(attempt.sequence, base).first;
  const bool behind = at == lane.written.begin() || std::prev(at)->second < base;
  const bool before = std::next(at) == lane.written.end() || std::next(at)->second > base;
  if (!behind || !before) {
    Fail(Rule::kOrderOfSession, Cat("value ", attempt.value, ", item ", attempt.sequence, " of session ",
                                    attempt.session, ", stands at ", base, " of ", attempt.key.ToString(),
                                    behind ? "; a later item stands before it" : "; an earlier item stands behind it"));
  }
  const auto last = lane.written_last.emplace(attempt.resets, attempt.sequence).first;
  last->second = std::max(last->second, attempt.sequence);
  CheckLane(attempt, lane);
}

void History::CheckLane(const Attempt& attempt, const Lane& lane) {
  const auto refused = lane.refused_first.find(attempt.resets);
  const auto written = lane.written_last.find(attempt.resets);
  if (refused == lane.refused_first.end() || written == lane.written_last.end()) return;
  if (refused->second < written->second) {
    Fail(Rule::kFailedSessionStops,
         Cat("item ", refused->second, " of session ", attempt.session, " in ", attempt.key.ToString(),
             " was refused, and item ", written->second, " was written without a reset between them"));
  }
}

// ---- Readers

int64_t History::ValueOf(const PartitionKey& key, const record::Batch& batch) {
  const auto phantom = [&](std::string_view why) {
    Fail(Rule::kNoPhantom, Cat("the batch at ", batch.base_offset(), " of ", key.ToString(), " ", why));
    return int64_t{0};
  };
  auto reader = record::RecordReader::Open(batch.view());
  if (!reader.ok()) return phantom("cannot be read");
  int64_t value = 0;
  int32_t count = 0;
  record::Record record;
  for (;; ++count) {
    const auto more = reader->Next(&record);
    if (!more.ok()) return phantom("has a record that cannot be read");
    if (!*more) break;
    const std::string_view text = record.value.value_or("");
    if (count == 0) std::from_chars(text.data(), text.data() + text.size(), value);
    if (!text.starts_with(ValueText(value, count))) return phantom("has another value's record in it");
  }
  const auto attempt = attempts_.find(value);
  if (attempt == attempts_.end()) return phantom("has a value that nobody sent");
  if (attempt->second.key != key) return phantom("has a value that was sent to another partition");
  if (attempt->second.records != count) return phantom("has more or fewer records than were sent");
  return value;
}

void History::OnSeen(const PartitionKey& key, const record::Batch& batch) {
  Partition& partition = partitions_[key];
  const Offset base = batch.base_offset();
  const uint32_t crc = Crc32c(batch.bytes().view());  // of what was read: that in its header may be what was written
  const auto known = partition.seen.find(base);
  if (known != partition.seen.end()) {
    if (known->second.crc != crc || known->second.next != batch.next_offset()) {
      Fail(Rule::kContentNeverChanges,
           Cat("the batch at ", base, " of ", key.ToString(), " was one of epoch ", known->second.epoch, " to ",
               known->second.next, ", and is one of epoch ", batch.epoch(), " to ", batch.next_offset()));
    }
    return;
  }
  ++batches_seen_;
  Seen seen{.next = batch.next_offset(), .epoch = batch.epoch(), .crc = crc};
  if (!batch.is_control()) seen.value = ValueOf(key, batch);
  partition.seen.emplace(base, seen);
  CheckNeighbours(key, partition, base);
  const auto promised = partition.acknowledged.lower_bound(base);
  if (promised != partition.acknowledged.end() && promised->first < seen.next && promised->second != seen.value) {
    Fail(Rule::kAcknowledgedStays,
         Cat("value ", promised->second, " was acknowledged at ", promised->first, " of ", key.ToString(),
             ", and there is ", seen.value == 0 ? std::string("a control batch") : Cat("value ", seen.value)));
  }
  if (seen.value == 0) return;
  Attempt& attempt = attempts_.at(seen.value);
  if (attempt.state == Attempt::State::kRefused) {
    Fail(Rule::kRefusedNever, Cat("value ", seen.value, " was refused and stands at ", base, " of ", key.ToString()));
  } else if (attempt.base == Offset(-1)) {
    OnWritten(attempt, base);
  } else if (attempt.base != base) {
    Fail(Rule::kWrittenOnce,
         Cat("value ", seen.value, " stands at ", attempt.base, " and at ", base, " of ", key.ToString()));
  }
}

void History::CheckNeighbours(const PartitionKey& key, const Partition& partition, Offset base) {
  const auto at = partition.seen.find(base);
  const auto check = [&](const auto& first, const auto& second) {
    if (first.second.next > second.first) {
      Fail(Rule::kContentNeverChanges, Cat("a batch was seen from ", first.first, " to ", first.second.next, " of ",
                                           key.ToString(), ", and one from ", second.first));
    }
    if (first.second.epoch > second.second.epoch) {
      Fail(Rule::kNothingGoesBack, Cat("the batch at ", second.first, " of ", key.ToString(), " has epoch ",
                                       second.second.epoch, ", the one at ", first.first, " has ", first.second.epoch));
    }
  };
  if (at != partition.seen.begin()) check(*std::prev(at), *at);
  if (std::next(at) != partition.seen.end()) check(*at, *std::next(at));
}

void History::OnEpoch(const PartitionKey& key, LeaderEpoch epoch, NodeId by) {
  const auto [at, fresh] = partitions_[key].leaders.emplace(epoch, by);
  if (!fresh && at->second != by) {
    Fail(Rule::kOneLeaderPerEpoch,
         Cat("nodes ", at->second, " and ", by, " both answered for ", key.ToString(), " as leaders of epoch ", epoch));
  }
}

Offset History::AcknowledgedEnd(const PartitionKey& key) const {
  const auto at = partitions_.find(key);
  return at == partitions_.end() ? Offset(0) : std::max(at->second.acknowledged_end, at->second.end_known);
}

Offset History::LogStartKnown(const PartitionKey& key) const {
  const auto at = partitions_.find(key);
  return at == partitions_.end() ? Offset(0) : at->second.log_start_known;
}

NodeId History::LeaderKnown(const PartitionKey& key) const {
  const auto at = partitions_.find(key);
  return at == partitions_.end() || at->second.leaders.empty() ? NodeId(0) : at->second.leaders.rbegin()->second;
}

void History::OnEndAnswered(const PartitionKey& key, Offset end, Offset end_then) {
  if (end < end_then) {
    Fail(Rule::kNothingGoesBack, Cat(key.ToString(), " is said to end at ", end, ", and was known to end at ", end_then,
                                     " before that was asked"));
  }
  Partition& partition = partitions_[key];
  partition.end_known = std::max(partition.end_known, end);
}

void History::OnStartAnswered(const PartitionKey& key, Offset start, Offset start_then) {
  Partition& partition = partitions_[key];
  if (start < start_then) {
    Fail(Rule::kNothingGoesBack, Cat(key.ToString(), " is said to begin at ", start, ", and was known to begin at ",
                                     start_then, " before that was asked"));
  }
  if (start > partition.delete_asked) {
    Fail(Rule::kLogStartOnlyAsAsked, Cat(key.ToString(), " begins at ", start,
                                         "; nobody asked to delete more than what is below ", partition.delete_asked));
  }
  partition.log_start_known = std::max(partition.log_start_known, start);
}

void History::OnDeleteAsked(const PartitionKey& key, Offset before) {
  Partition& partition = partitions_[key];
  partition.delete_asked = std::max(partition.delete_asked, before);
}

// ---- The end

void History::CheckComplete(const PartitionKey& key, Offset start, Offset end) {
  const Partition& partition = partitions_[key];
  for (auto at = partition.acknowledged.lower_bound(start); at != partition.acknowledged.end(); ++at) {
    const auto seen = partition.seen.find(at->first);
    if (seen == partition.seen.end() || at->first >= end) {
      return Fail(Rule::kAcknowledgedStays, Cat("value ", at->second, " was acknowledged at ", at->first, " of ",
                                                key.ToString(), " and is not there; the log is ", start, " to ", end));
    }
  }
  if (!partition.seen.empty() && partition.seen.rbegin()->second.next > end) {
    Fail(Rule::kOnlyCommittedSeen, Cat("a batch to ", partition.seen.rbegin()->second.next, " of ", key.ToString(),
                                       " was seen, and the log ends at ", end));
  }
  Offset next = start;
  auto at = partition.seen.upper_bound(start);
  if (at != partition.seen.begin() && std::prev(at)->second.next > start) --at;
  for (; next < end; ++at) {
    if (at == partition.seen.end() || at->first > next) {
      return Fail(Rule::kBatchesTile, Cat("there is no batch at ", next, " of ", key.ToString()));
    }
    next = at->second.next;
  }
}

uint64_t History::leader_changes() const {
  uint64_t changes = 0;
  for (const auto& [key, partition] : partitions_) {
    for (auto at = partition.leaders.begin(); at != partition.leaders.end(); ++at) {
      if (at != partition.leaders.begin() && at->second != std::prev(at)->second) ++changes;
    }
  }
  return changes;
}

uint64_t History::Hash() const {
  uint64_t hash = 0xcbf29ce484222325;
  const auto mix = [&hash](uint64_t part) { hash = (hash ^ part) * 0x100000001b3; };
  for (const auto& [value, attempt] : attempts_) {
    mix(static_cast<uint64_t>(value));
    mix(static_cast<uint64_t>(attempt.state));
    mix(static_cast<uint64_t>(attempt.base.value()));
  }
  for (const auto& [key, partition] : partitions_) {
    for (const auto& [base, seen] : partition.seen) mix(static_cast<uint64_t>(base.value()) ^ seen.crc);
  }
  return hash;
}

}  // namespace sluice::cluster_simulation
