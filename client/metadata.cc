#include "client/metadata.h"

#include <algorithm>
#include <utility>

#include "client/error.h"
#include "common/text.h"

namespace sluice::client {
namespace {

// After this long without a question the next is asked at once.
constexpr absl::Duration kQuiet = absl::Seconds(5);

absl::Status Closed() {
  return absl::CancelledError("the client is closed");
}

}  // namespace

Metadata::Metadata(Executor& executor, Clock& clock, Options options, Describe describe)
    : executor_(executor), clock_(clock), options_(options), describe_(std::move(describe)) {}

Metadata::Routes Metadata::Known(const std::string& topic) const {
  const auto found = topics_.find(topic);
  return found == topics_.end() ? nullptr : found->second.routes;
}

void Metadata::Find(const std::string& topic, absl::Duration timeout, Done done) {
  const Routes known = Known(topic);
  if (known == nullptr) return Refresh(topic, 0, timeout, std::move(done));
  const absl::Duration now = clock_.Monotonic();
  if (now - known->asked_at > options_.age_max) AskSoon(topic, topics_[topic]);
  done(known);
}

void Metadata::Refresh(const std::string& topic, uint64_t since, absl::Duration timeout, Done done) {
  if (closed_) return done(Closed());
  Topic& entry = topics_[topic];
  if (entry.routes != nullptr && entry.routes->question > since) return done(entry.routes);
  auto waiter = std::make_shared<Waiter>();
  waiter->since = since;
  waiter->done = std::move(done);
  waiter->timer = executor_.PostAfter(timeout, [weak = weak_from_this(), topic, waiter] {
    const auto self = weak.lock();
    if (self == nullptr || waiter->done == nullptr) return;
    Topic& late = self->topics_[topic];
    late.waiting.remove(waiter);
    const absl::Status why = late.error.ok() ? absl::DeadlineExceededError("no broker answered") : late.error;
    std::exchange(waiter->done, nullptr)(absl::Status(
        why.code(), Cat("the leaders of topic ", topic, " could not be learned in time: ", why.message())));
  });
  entry.waiting.push_back(std::move(waiter));
  AskSoon(topic, entry);
}

absl::Duration Metadata::Backoff(int questions) const {
  if (questions == 0) return absl::ZeroDuration();
  return std::min(options_.backoff_max, options_.backoff_min * (1 << std::min(questions - 1, 10)));
}

void Metadata::AskSoon(const std::string& name, Topic& topic) {
  if (topic.asking || closed_) return;
  topic.asking = true;
  const absl::Duration now = clock_.Monotonic();
  if (now - topic.answered_at > kQuiet) topic.questions = 0;
  const absl::Duration wait = topic.answered_at + Backoff(topic.questions) - now;
  if (wait <= absl::ZeroDuration()) return Ask(name);
  executor_.PostAfter(wait, [weak = weak_from_this(), name] {
    if (const auto self = weak.lock()) self->Ask(name);
  });
}

void Metadata::Ask(const std::string& name) {
  if (closed_) return;
  ++topics_[name].questions;
  const uint64_t question = ++last_question_;
  const absl::Duration asked_at = clock_.Monotonic();
  describe_(name, options_.timeout,
            [self = shared_from_this(), name, question, asked_at](absl::StatusOr<Routes> answer) {
              self->OnAnswer(name, question, asked_at, std::move(answer));
            });
}

void Metadata::OnAnswer(const std::string& name, uint64_t question, absl::Duration asked_at,
                        absl::StatusOr<Routes> answer) {
  if (closed_) return;
  Topic& topic = topics_[name];
  topic.asking = false;
  topic.answered_at = clock_.Monotonic();
  topic.error = answer.status();
  if (answer.ok()) {
    const std::shared_ptr<TopicRoutes> merged = Merge(topic.routes, **answer);
    merged->question = question;
    merged->asked_at = asked_at;
    topic.routes = merged;
    answer = topic.routes;
  } else if (HasReason(answer.status(), Reason::kUnknownTopic)) {
    topic.routes = nullptr;
  }
  std::vector<std::shared_ptr<Waiter>> ready;
  for (auto at = topic.waiting.begin(); at != topic.waiting.end();) {
    // A failure to learn anything is everybody's; an answer only of those who asked before the question left.
    const bool answered = !answer.ok() || (*at)->since < question;
    if (answered) ready.push_back(*at);
    at = answered ? topic.waiting.erase(at) : std::next(at);
  }
  if (!topic.waiting.empty()) AskSoon(name, topic);
  for (const std::shared_ptr<Waiter>& waiter : ready) {
    executor_.Cancel(waiter->timer);
    if (waiter->done != nullptr) std::exchange(waiter->done, nullptr)(answer);
  }
}

std::shared_ptr<TopicRoutes> Metadata::Merge(const Routes& old, const TopicRoutes& answer) {
  auto merged = std::make_shared<TopicRoutes>(answer);
  if (old == nullptr || old->id != answer.id) return merged;
  for (size_t i = 0; i < std::min(old->partitions.size(), merged->partitions.size()); ++i) {
    const Route& known = old->partitions[i];
    if (known.leader.empty() || known.failed || merged->partitions[i].epoch >= known.epoch) continue;
    merged->partitions[i] = known;
    merged->partitions[i].hops = 0;
  }
  return merged;
}

bool Metadata::Follow(const std::string& topic, int32_t partition, std::string_view leader, std::string_view hint) {
  const auto found = topics_.find(topic);
  if (found == topics_.end() || found->second.routes == nullptr) return false;
  const Routes& old = found->second.routes;
  const auto index = static_cast<size_t>(partition);
  if (partition < 0 || index >= old->partitions.size()) return false;
  const Route& known = old->partitions[index];
  // Somebody learned of another meanwhile.
  if (known.leader != leader) return !known.leader.empty() && !known.failed;
  const bool useful = !hint.empty() && hint != leader && known.hops < kHopsMax;
  if (!useful && known.failed) return false;
  auto changed = std::make_shared<TopicRoutes>(*old);
  Route& route = changed->partitions[index];
  route.failed = !useful;
  if (useful) {
    route.leader = std::string(hint);
    route.epoch = known.epoch + 1;  // another leader, so a later epoch
    ++route.hops;
  }
  found->second.routes = std::move(changed);
  return useful;
}

void Metadata::Forget(const std::string& topic) {
  const auto found = topics_.find(topic);
  if (found != topics_.end()) found->second.routes = nullptr;
}

void Metadata::Close() {
  closed_ = true;
  describe_ = nullptr;
  // Who waits may be what keeps the client's parts alive, and no answer need come any more.
  for (auto& [name, topic] : std::exchange(topics_, {})) {
    for (const std::shared_ptr<Waiter>& waiter : topic.waiting) {
      executor_.Cancel(waiter->timer);
      if (waiter->done != nullptr) std::exchange(waiter->done, nullptr)(Closed());
    }
  }
}

absl::StatusOr<std::string> LeaderOf(const TopicRoutes& routes, std::string_view topic, int32_t partition) {
  ErrorDetail detail;
  detail.topic = std::string(topic);
  detail.partition = partition;
  if (partition < 0 || static_cast<size_t>(partition) >= routes.partitions.size()) {
    detail.reason = Reason::kUnknownTopic;
    detail.message = Cat("topic ", topic, " has no partition ", partition, ": it has ", routes.partitions.size(),
                         ", numbered from 0");
    return MakeError(detail);
  }
  const Route& route = routes.partitions[static_cast<size_t>(partition)];
  if (!route.leader.empty()) return route.leader;
  detail.reason = Reason::kNotAvailable;
  detail.retriable = true;
  detail.message = Cat("partition ", topic, "/", partition, " has no leader at the moment");
  if (!route.trouble.empty()) detail.message += Cat("; one of its replicas reports: ", route.trouble);
  return MakeError(detail);
}

}  // namespace sluice::client
