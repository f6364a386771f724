#include "client/leader_calls.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "client/error.h"

namespace sluice::client {
namespace {

// A leader that does not answer for this long may not be one any more.
constexpr absl::Duration kAnswerMax = absl::Seconds(5);
constexpr absl::Duration kBackoffMin = absl::Milliseconds(20);
constexpr absl::Duration kBackoffMax = absl::Milliseconds(250);

class Calls : public std::enable_shared_from_this<Calls> {
 public:
  Calls(std::shared_ptr<Core> core, LeaderCall call, absl::Duration timeout,
        absl::AnyInvocable<void(std::vector<absl::Status>)> done)
      : core_(std::move(core)),
        call_(std::move(call)),
        deadline_(core_->clock().Monotonic() + timeout),
        done_(std::move(done)),
        statuses_(call_.items.size()),
        lost_at_(call_.items.size()) {}

  void Start() {
    std::vector<size_t> all(call_.items.size());
    for (size_t i = 0; i < all.size(); ++i) all[i] = i;
    Round(std::move(all));
  }

 private:
  absl::Duration Left() const { return deadline_ - core_->clock().Monotonic(); }

  void Round(std::vector<size_t> indexes) {
    again_.clear();
    std::map<std::string, std::vector<size_t>> by_topic;
    for (const size_t i : indexes) by_topic[call_.items[i].topic].push_back(i);
    under_way_ = 1;  // this loop
    for (auto& [topic, own] : by_topic) {
      ++under_way_;
      auto split = [self = shared_from_this(), own = own](const absl::StatusOr<Metadata::Routes>& routes) {
        self->Split(own, routes);
        self->OneDone();
      };
      std::optional<uint64_t> since;
      for (const size_t i : own) since = std::max(since, lost_at_[i]);
      if (since.has_value()) {
        core_->metadata().Refresh(topic, *since, Left(), std::move(split));
      } else {
        core_->metadata().Find(topic, Left(), std::move(split));
      }
    }
    OneDone();
  }

  void Split(const std::vector<size_t>& indexes, const absl::StatusOr<Metadata::Routes>& routes) {
    if (!routes.ok()) {
      // When the time is over, what kept an item from being answered says more.
      for (const size_t i : indexes) {
        const bool known = absl::IsDeadlineExceeded(routes.status()) && !statuses_[i].ok();
        if (!known) Fail(i, routes.status(), /*again=*/false);
      }
      return;
    }
    std::map<std::string, std::vector<size_t>> by_leader;
    for (const size_t i : indexes) {
      const TopicPartition& item = call_.items[i];
      absl::StatusOr<std::string> leader = LeaderOf(**routes, item.topic, item.partition.value());
      if (leader.ok()) {
        by_leader[*leader].push_back(i);
        continue;
      }
      // A partition that was added since is not in what was known before this began.
      const bool old = absl::IsNotFound(leader.status()) && !lost_at_[i].has_value();
      Lose(i);
      Fail(i, leader.status(), old || absl::IsUnavailable(leader.status()));
    }
    for (auto& [leader, own] : by_leader) {
      ++under_way_;
      core_->CallAt(leader, call_.method, call_.encode(own), std::min(Left(), kAnswerMax),
                    [self = shared_from_this(), leader = leader, own = own](absl::StatusOr<Bytes> answer) {
                      self->OnAnswer(leader, own, std::move(answer));
                      self->OneDone();
                    });
    }
  }

  void OnAnswer(const std::string& leader, const std::vector<size_t>& indexes, absl::StatusOr<Bytes> answer) {
    const absl::StatusOr<std::vector<absl::Status>> statuses =
        answer.ok() ? call_.decode(*answer, indexes) : answer.status();
    for (size_t k = 0; k < indexes.size(); ++k) {
      const size_t i = indexes[k];
      const absl::Status& status = statuses.ok() ? (*statuses)[k] : statuses.status();
      if (status.ok()) {
        statuses_[i] = absl::OkStatus();
        continue;
      }
      const std::optional<ErrorDetail> detail = GetErrorDetail(status);
      const std::string hint = detail.has_value() ? detail->leader : "";
      const bool trouble = IsLeaderTrouble(status);
      const TopicPartition& item = call_.items[i];
      if (trouble && !core_->metadata().Follow(item.topic, item.partition.value(), leader, hint)) Lose(i);
      Fail(i, status, trouble || (detail.has_value() && detail->retriable));
    }
  }

  void Lose(size_t index) { lost_at_[index] = core_->metadata().last_question(); }

  void Fail(size_t index, const absl::Status& status, bool again) {
    statuses_[index] = status;
    if (again && !core_->closed()) again_.push_back(index);
  }

  void OneDone() {
    if (--under_way_ > 0) return;
    const absl::Duration pause = std::min(kBackoffMax, kBackoffMin * (1 << std::min(rounds_++, 10)));
    if (again_.empty() || Left() <= pause) return std::exchange(done_, nullptr)(std::move(statuses_));
    core_->executor().PostAfter(pause, [self = shared_from_this(), again = again_] { self->Round(again); });
  }

  const std::shared_ptr<Core> core_;
  const LeaderCall call_;
  const absl::Duration deadline_;
  absl::AnyInvocable<void(std::vector<absl::Status>)> done_;
  std::vector<absl::Status> statuses_;
  std::vector<std::optional<uint64_t>>
      lost_at_;  // the last question when what was known of the item's leader proved wrong
  std::vector<size_t> again_;
  int under_way_ = 0;
  int rounds_ = 0;
};

}  // namespace

bool IsLeaderTrouble(const absl::Status& status) {
  const std::optional<ErrorDetail> detail = GetErrorDetail(status);
  if (!detail.has_value()) {
    return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) || absl::IsCancelled(status);
  }
  switch (detail->reason) {
    case Reason::kNotLeader:
    case Reason::kNotAvailable:
    case Reason::kStaleLeaderEpoch:
    case Reason::kUnknownTopic:
      return true;
    default:
      return false;
  }
}

void CallLeaders(std::shared_ptr<Core> core, LeaderCall call, absl::Duration timeout,
                 absl::AnyInvocable<void(std::vector<absl::Status>)> done) {
  if (call.items.empty()) return done({});
  std::make_shared<Calls>(std::move(core), std::move(call), timeout, std::move(done))->Start();
}

}  // namespace sluice::client
