// Consumers: fetches that wait, from any offset, and questions about offsets.
#include <algorithm>
#include <utility>

#include "common/text.h"
#include "tests/simulation/cluster/clients.h"

namespace sluice::cluster_simulation {

using broker::FetchOutcome;
using broker::ListOffsetsItem;
using broker::ListOffsetsOutcome;
using broker::Reason;

void CheckFetched(Site& site, const PartitionKey& key, Offset asked, const FetchOutcome& outcome, NodeId from) {
  History& history = site.context.history;
  history.OnEpoch(key, outcome.leader_epoch, from);
  history.OnStartAnswered(key, outcome.log_start, Offset(0));
  Offset next = asked;
  for (const record::Batch& batch : outcome.batches) {
    const bool first = next == asked && batch.base_offset() <= asked && batch.next_offset() > asked;
    if (!first && batch.base_offset() != next) {
      history.Fail(Rule::kBatchesTile, Cat("a fetch of ", key.ToString(), " from ", asked, " brought a batch at ",
                                           batch.base_offset(), " where ", next, " was next"));
    }
    next = batch.next_offset();
    history.OnSeen(key, batch);
  }
  if (next != outcome.next_offset || next > outcome.high_watermark) {
    history.Fail(Rule::kBatchesTile, Cat("a fetch of ", key.ToString(), " from ", asked, " brought batches to ", next,
                                         ", says to read on at ", outcome.next_offset, ", and that ",
                                         outcome.high_watermark, " is committed"));
  }
}

void Consumer::Begin() {
  ActLater(absl::Milliseconds(20));
}

void Consumer::ActLater(absl::Duration pause) {
  site_.context.scheduler.At(Between(site_.context.random(), 0.2 * pause, 1.8 * pause), [this] { Act(); });
}

void Consumer::Act() {
  if (!site_.clients_act) return ActLater(absl::Milliseconds(200));
  SimRandom& random = site_.context.random();
  const bool gone = key_ && !site_.topics.at(key_->topic).usable();
  if (!key_ || gone || random.OneIn(40)) {
    key_ = site_.AnyPartition();
    if (!key_) return ActLater(absl::Milliseconds(100));
    offset_ = reached_ = site_.context.history.LogStartKnown(*key_);
    epoch_ = reached_in_ = LeaderEpoch(0);
  }
  if (random.OneIn(20)) {  // from somewhere else
    const auto span = static_cast<uint64_t>(std::max<int64_t>(1, reached_.value()));
    offset_ = Offset(static_cast<int64_t>(random.Below(span)));
  }
  if (random.OneIn(8)) return AskOffsets();
  Fetch();
}

void Consumer::Fetch() {
  Context& context = site_.context;
  const NodeId node = beliefs_.Leader(*key_);
  const bool waits = context.random().OneIn(2);
  broker::FetchSpec spec;
  spec.items.push_back(
      {.topic = key_->topic, .partition = PartitionId(key_->partition), .offset = offset_, .leader_epoch = epoch_});
  spec.wait_max = waits ? Between(context.random(), absl::Milliseconds(5), absl::Seconds(2)) : absl::ZeroDuration();
  spec.bytes_max = 1 + static_cast<int64_t>(context.random().Below(64 << 10));
  ++site_.calls_under_way;
  site_.wire.Call<std::vector<FetchOutcome>>(
      node, nullptr, std::nullopt,
      [spec = std::move(spec)](Node& at, auto reply) mutable { at.broker().Fetch(std::move(spec), std::move(reply)); },
      [this, node, waits](Answer<std::vector<FetchOutcome>> answer) {
        --site_.calls_under_way;
        if (answer.fate == Fate::kAnswered) {
          OnFetched(node, waits, std::move(answer.value->front()));
        } else {
          beliefs_.Forget(*key_);
        }
        ActLater(absl::Milliseconds(10));
      });
}

void Consumer::OnFetched(NodeId from, bool waits, FetchOutcome outcome) {
  Context& context = site_.context;
  if (!outcome.error) {
    CheckFetched(site_, *key_, offset_, outcome, from);
    if (waits && !outcome.batches.empty() && offset_ == reached_) context.hits.Add(Hit::kWaitedAtEnd);
    offset_ = outcome.next_offset;
    epoch_ = std::max(epoch_, outcome.leader_epoch);
    reached_ = std::max(reached_, offset_);
    reached_in_ = std::max(reached_in_, outcome.leader_epoch);
    return;
  }
  const broker::Error& error = *outcome.error;
  context.trace.Say([&] {
    return Cat("a fetch of ", key_->ToString(), " from ", offset_, " at node ", from, ": ",
               broker::ReasonName(error.reason), ": ", error.message);
  });
  beliefs_.Learn(*key_, error);
  if (error.reason == Reason::kStaleLeaderEpoch) {
    // Whoever leads a later epoch knows all that was committed in this one. The next answer may be an earlier one's.
    epoch_ = LeaderEpoch(0);
  } else if (error.reason == Reason::kOffsetOutOfRange) {
    context.hits.Add(Hit::kOffsetOutOfRange);
    if (offset_ >= error.log_start && offset_ <= error.high_watermark) {
      context.history.Fail(Rule::kNothingGoesBack,
                           Cat("offset ", offset_, " of ", key_->ToString(), " is refused as out of range, which is ",
                               error.log_start, " to ", error.high_watermark));
    }
    if (epoch_ != LeaderEpoch(0) && epoch_ >= reached_in_ && reached_ > error.high_watermark) {
      context.history.Fail(Rule::kNothingGoesBack,
                           Cat(key_->ToString(), " was read to ", reached_, " in epoch ", epoch_,
                               ", and the same leader says that ", error.high_watermark, " is committed"));
    }
    context.history.OnStartAnswered(*key_, error.log_start, Offset(0));
    offset_ = std::max(offset_, error.log_start);
    if (offset_ > error.high_watermark) offset_ = error.log_start;
  }
}

void Consumer::AskOffsets() {
  Context& context = site_.context;
  const PartitionKey key = *key_;
  const bool of_anybody = context.plan.asks_anybody && context.random().OneIn(2);
  const NodeId node = of_anybody ? site_.AnyNode() : beliefs_.Leader(key);
  const Offset end_then = context.history.AcknowledgedEnd(key);
  const Offset start_then = context.history.LogStartKnown(key);
  std::vector<ListOffsetsItem> items;
  for (const auto kind : {ListOffsetsItem::Kind::kLatest, ListOffsetsItem::Kind::kEarliest}) {
    items.push_back({.topic = key.topic, .partition = PartitionId(key.partition), .kind = kind});
  }
  ++site_.calls_under_way;
  site_.wire.Call<std::vector<ListOffsetsOutcome>>(
      node, nullptr, std::nullopt,
      [items = std::move(items)](Node& at, auto reply) mutable {
        at.broker().ListOffsets(std::move(items), std::move(reply));
      },
      [this, key, node, end_then, start_then](Answer<std::vector<ListOffsetsOutcome>> answer) {
        --site_.calls_under_way;
        ActLater(absl::Milliseconds(10));
        if (answer.fate != Fate::kAnswered) return beliefs_.Forget(key);
        History& history = site_.context.history;
        const ListOffsetsOutcome& latest = answer.value->at(0);
        const ListOffsetsOutcome& earliest = answer.value->at(1);
        site_.context.trace.Say([&] {
          return Cat("node ", node, " says of ", key.ToString(), " that it ",
                     latest.error ? latest.error->message : Cat("ends at ", latest.offset));
        });
        if (!latest.error) {
          history.OnEndAnswered(key, latest.offset, end_then);
          history.OnEpoch(key, latest.leader_epoch, node);
        } else {
          beliefs_.Learn(key, *latest.error);
        }
        if (!earliest.error) history.OnStartAnswered(key, earliest.offset, start_then);
      });
}

}  // namespace sluice::cluster_simulation
