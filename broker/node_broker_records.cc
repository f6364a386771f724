// Appends, reads and offsets: each to the shard of its partition.
#include "broker/node_broker_impl.h"

namespace sluice::broker {

NodeBroker::Found NodeBroker::Find(const Catalog& catalog, const std::string& topic, PartitionId partition) const {
  const std::string_view shown = std::string_view(topic).substr(0, 249);
  const CatalogTopic* found = catalog.Find(topic);
  if (found == nullptr) {
    return {nullptr, MakeError(Reason::kUnknownTopic, Cat("there is no topic \"", shown, "\""), shown, partition)};
  }
  if (partition.value() < 0 || static_cast<size_t>(partition.value()) >= found->partitions.size()) {
    return {nullptr, MakeError(Reason::kUnknownTopic,
                               Cat("topic \"", shown, "\" has ", found->partitions.size(), " partitions, there is no ",
                                   partition),
                               shown, partition)};
  }
  return {found->partitions[static_cast<size_t>(partition.value())], std::nullopt};
}

void NodeBroker::Produce(ProduceItem item, const std::shared_ptr<ProduceSession>& session,
                         Callback<ProduceOutcome> done) {
  CallGate::Pass pass = gate_->Enter();
  if (!pass) {
    return home().Post([done = std::move(done)]() mutable { done(NotServing()); });
  }
  Callback<ProduceOutcome> guarded = Guard<ProduceOutcome>(std::move(pass), std::move(done));
  const auto refuse = [this](Callback<ProduceOutcome> to, Error error) {
    home().Post([to = std::move(to), error = std::move(error)]() mutable { to(std::move(error)); });
  };
  NodeSession::Route route;
  if (session != nullptr) {
    const NodeSession::Route* known = static_cast<NodeSession&>(*session).Find(catalog_, item.topic, item.partition);
    if (known == nullptr) {
      return refuse(std::move(guarded), MakeError(Reason::kQuota, Cat("a stream may name ", kSessionLanesMax,
                                                                      " partitions; open another one")));
    }
    route = *known;
  }
  if (route.partition == nullptr) {
    Found found = Find(*catalog_.Load(), item.topic, item.partition);
    // A session's view may be a moment older than the catalog's; it then counts, for order's sake.
    if (found.partition != nullptr && session != nullptr) {
      found.error = MakeError(Reason::kNotAvailable, "the topic is being made", item.topic, item.partition);
    }
    if (found.error.has_value()) return refuse(std::move(guarded), *std::move(found.error));
    route.partition = std::move(found.partition);
  }
  PartitionAppend append;
  append.hold = memory_->Take(static_cast<int64_t>(item.batch.size_bytes()));
  if (append.hold) append.batch = std::move(item.batch);
  append.expected_base_offset = item.expected_base_offset;
  append.leader_epoch = item.leader_epoch;
  append.reset = item.reset;
  append.lane = std::move(route.lane);
  append.done = std::move(guarded);
  Executor& shard = route.partition->shard();
  shard.Post([partition = std::move(route.partition), append = std::move(append)]() mutable {
    partition->Append(std::move(append));
  });
}

size_t NodeBroker::PlaceOf(ProduceSession& session, const std::string& topic, PartitionId partition, size_t bytes) {
  Partition* known = static_cast<NodeSession&>(session).Known(topic, partition);
  return known == nullptr ? 0 : known->PlaceOf(bytes);
}

FetchHandle NodeBroker::Fetch(FetchSpec spec, Callback<std::vector<FetchOutcome>> done) {
  CallGate::Pass pass = gate_->Enter();
  std::vector<FetchOperation::Route> routes;
  routes.reserve(spec.items.size());
  const auto catalog = catalog_.Load();
  for (const auto& item : spec.items) {
    FetchOperation::Route route;
    if (!pass) {
      route.error = NotServing();
    } else if (spec.items.size() > kItemsMax) {
      route.error = TooManyItems(spec.items.size());
    } else {
      Found found = Find(*catalog, item.topic, item.partition);
      route = {std::move(found.partition), std::move(found.error)};
    }
    if (route.error.has_value()) {
      route.error->topic = item.topic;
      route.error->partition = item.partition;
    }
    routes.push_back(std::move(route));
  }
  const auto first = std::find_if(routes.begin(), routes.end(), [](const auto& r) { return r.partition != nullptr; });
  Executor& at = first == routes.end() ? home() : first->partition->shard();
  std::lock_guard lock(fetches_mutex_);
  const uint64_t id = ++fetches_made_;
  auto fetch = std::make_shared<FetchOperation>(
      std::move(spec), std::move(routes), at, waiting_fetches_, reads_, std::move(pass),
      [this, id, done = std::move(done)](std::vector<FetchOutcome> outcomes) mutable {
        {
          std::lock_guard inner(fetches_mutex_);
          fetches_.erase(id);
        }
        CountIn(outcomes);
        done(std::move(outcomes));
      });
  fetches_[id] = fetch;
  fetch->Start();
  // Stop may have looked for waiting fetches just before this one was noted.
  if (!gate_->is_open()) fetch->Cancel();
  return fetch;
}

template <class Item, class Outcome, class Ask>
void NodeBroker::AskEach(std::vector<Item> items, Callback<std::vector<Outcome>> done, Ask ask) {
  CallGate::Pass pass = gate_->Enter();
  if (items.empty()) return home().Post([done = std::move(done)]() mutable { done({}); });
  const size_t count = items.size();
  const auto catalog = catalog_.Load();
  const bool serving = static_cast<bool>(pass);
  auto all = std::make_shared<Gather<Outcome>>(count, Guard<std::vector<Outcome>>(std::move(pass), std::move(done)));
  for (size_t i = 0; i < count; ++i) {
    Found found;
    if (!serving) {
      found.error = NotServing();
    } else if (count > kItemsMax) {
      found.error = TooManyItems(count);
    } else {
      found = Find(*catalog, items[i].topic, items[i].partition);
    }
    if (found.error.has_value()) {
      Outcome outcome;
      outcome.topic = items[i].topic;
      outcome.partition = items[i].partition;
      found.error->topic = outcome.topic;
      found.error->partition = outcome.partition;
      outcome.error = std::move(found.error);
      home().Post([all, i, outcome = std::move(outcome)]() mutable { all->Set(i, std::move(outcome)); });
      continue;
    }
    Executor& shard = found.partition->shard();
    shard.Post([all, i, ask, partition = std::move(found.partition), item = std::move(items[i])]() mutable {
      ask(*partition, item, [all, i](Outcome outcome) { all->Set(i, std::move(outcome)); });
    });
  }
}

void NodeBroker::ListOffsets(std::vector<ListOffsetsItem> items, Callback<std::vector<ListOffsetsOutcome>> done) {
  AskEach(std::move(items), std::move(done),
          [](Partition& partition, const ListOffsetsItem& item, Callback<ListOffsetsOutcome> answer) {
            partition.ListOffsets(item, std::move(answer));
          });
}

void NodeBroker::DeleteRecords(std::vector<DeleteRecordsItem> items, Callback<std::vector<DeleteRecordsOutcome>> done) {
  AskEach(std::move(items), std::move(done),
          [](Partition& partition, const DeleteRecordsItem& item, Callback<DeleteRecordsOutcome> answer) {
            partition.DeleteRecords(item.before, std::move(answer));
          });
}

}  // namespace sluice::broker
