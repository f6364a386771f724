#include "broker/cluster_joiner.h"

#include <iterator>
#include <set>
#include <utility>
#include <vector>

#include "common/text.h"

namespace sluice::broker {
namespace {

/// What the other seeds still have once a member has answered: enough to notice that they are of another cluster, and
/// not so long that one that is away, or joins itself, holds anybody up.
constexpr absl::Duration kSeedsGrace = absl::Milliseconds(250);
/// Members that name each other as leaders, at most, before it begins anew.
constexpr int kHopsMax = 4;

}  // namespace

/// What the seeds say, all asked at once.
struct ClusterJoiner::Round {
  struct Answer {
    std::string seed;
    absl::StatusOr<RegisterAnswer> answer;
  };
  std::vector<Answer> answers;
  size_t missing = 0;
  size_t members = 0;      ///< Of those that have answered.
  bool looked_at = false;  ///< What comes later is only compared.
};

ClusterJoiner::~ClusterJoiner() {
  if (*alive_) Abandon();
}

void ClusterJoiner::Abandon() {
  *alive_ = false;
  done_ = nullptr;
  seams_.executor.Cancel(std::exchange(timer_, 0));
}

void ClusterJoiner::Join(Callback<absl::StatusOr<Joined>> done) {
  done_ = std::move(done);
  timer_ = seams_.executor.PostAfter(absl::ZeroDuration(), [this] { AskSeeds(); });
}

void ClusterJoiner::End(absl::StatusOr<Joined> result) {
  if (done_ != nullptr) std::exchange(done_, nullptr)(std::move(result));
}

void ClusterJoiner::Ask(const std::string& address, const RegisterRequest& request,
                        Callback<absl::StatusOr<RegisterAnswer>> done) {
  AskToRegister(seams_.calls, address, request, options_.call_deadline, seams_.executor, alive_, std::move(done));
}

void ClusterJoiner::AskSeeds() {
  auto round = std::make_shared<Round>();
  round->missing = options_.seeds.size();
  if (options_.seeds.empty()) return End(absl::FailedPreconditionError("cluster.seeds names nobody to join"));
  RegisterRequest who;
  who.ask_only = true;
  for (const std::string& seed : options_.seeds) {
    Ask(seed, who, [this, round, seed](absl::StatusOr<RegisterAnswer> answer) {
      round->members += answer.ok() ? 1 : 0;
      const bool first = answer.ok() && round->members == 1;
      round->answers.push_back({seed, std::move(answer)});
      --round->missing;
      if (round->looked_at) {
        if (absl::Status good = CheckAnswers(*round); !good.ok()) End(std::move(good));
      } else if (round->missing == 0) {
        OnAsked(round);
      } else if (first) {
        seams_.executor.Cancel(timer_);
        timer_ = seams_.executor.PostAfter(kSeedsGrace, [this, round] {
          if (!round->looked_at) OnAsked(round);
        });
      }
    });
  }
}

absl::Status ClusterJoiner::Refusal(const std::string& address, const absl::Status& answer) const {
  if (absl::IsAlreadyExists(answer)) {
    return absl::FailedPreconditionError(TwoProcesses(options_.node, address, "was there before"));
  }
  if (!absl::IsFailedPrecondition(answer)) return absl::OkStatus();
  return absl::FailedPreconditionError(Cat("the node at ", address, " refuses this one: ", Message(answer)));
}

absl::Status ClusterJoiner::CheckAnswers(const Round& round) const {
  const Round::Answer* first = nullptr;
  for (const Round::Answer& each : round.answers) {
    if (!each.answer.ok()) {
      if (absl::Status refused = Refusal(each.seed, each.answer.status()); !refused.ok()) return refused;
      continue;
    }
    if (first == nullptr) first = &each;
    if (each.answer->cluster_id == first->answer->cluster_id) continue;
    return absl::FailedPreconditionError(Cat("the seeds are of different clusters: ", first->seed, " of ",
                                             first->answer->cluster_id, ", ", each.seed, " of ",
                                             each.answer->cluster_id, ": correct cluster.seeds"));
  }
  return absl::OkStatus();
}

void ClusterJoiner::OnAsked(const std::shared_ptr<Round>& round) {
  round->looked_at = true;
  if (absl::Status good = CheckAnswers(*round); !good.ok()) return End(std::move(good));
  const Round::Answer* first = nullptr;
  absl::Status last_error;
  for (const Round::Answer& each : round->answers) {
    if (!each.answer.ok()) {
      last_error = each.answer.status();
      continue;
    }
    if (first == nullptr) first = &each;
  }
  if (first == nullptr) {
    trouble_.OnFailed(round->answers.back().seed, last_error);
    return TryLater(last_error.ToString());
  }
  const std::string& name = first->answer->cluster_name;
  if (!options_.cluster_name.empty() && name != options_.cluster_name) {
    return End(absl::FailedPreconditionError(Cat("cluster.name is \"", options_.cluster_name,
                                                 "\" in this node's configuration, and the cluster of the seed ",
                                                 first->seed, " is \"", name, "\"")));
  }
  std::string leader = NextLeader(*round);
  if (leader.empty()) {
    trouble_.OnFailed(first->seed, NoLeader());
    return TryLater("the cluster has no leader of the controller now");
  }
  RegisterAt(std::move(leader), 0);
}

// A seed that is cut off may have an old one in mind, and be the first to answer each time.
std::string ClusterJoiner::NextLeader(const Round& round) {
  std::set<std::string> leaders;
  for (const Round::Answer& each : round.answers) {
    if (each.answer.ok() && !each.answer->leader_address.empty()) leaders.insert(each.answer->leader_address);
  }
  if (leaders.empty()) return {};
  return *std::next(leaders.begin(), static_cast<std::ptrdiff_t>(leaders_tried_++ % leaders.size()));
}

void ClusterJoiner::RegisterAt(std::string address, int hops, Offset replaces) {
  RegisterRequest request = RequestOf(options_);
  request.replaces = replaces;
  Ask(address, request,
      [this, address, hops](absl::StatusOr<RegisterAnswer> answer) { OnRegistered(address, answer, hops); });
}

void ClusterJoiner::OnRegistered(const std::string& address, const absl::StatusOr<RegisterAnswer>& answer, int hops) {
  if (!answer.ok()) {
    if (absl::Status refused = Refusal(address, answer.status()); !refused.ok()) return End(std::move(refused));
    trouble_.OnFailed(address, answer.status());
    return TryLater(answer.status().ToString());
  }
  if (!answer->refused.empty()) return End(absl::FailedPreconditionError(answer->refused));
  if (answer->registered.has_value()) {
    return End(Joined{
        .cluster_id = answer->cluster_id, .cluster_name = answer->cluster_name, .registration = *answer->registered});
  }
  if (answer->leader_address.empty() || hops == kHopsMax) {
    trouble_.OnFailed(address, answer->leader_address.empty()
                                   ? NoLeader()
                                   : absl::UnavailableError(Cat("it names ", answer->leader_address,
                                                                " as the controller's leader, as the last of several "
                                                                "that name one another")));
    return TryLater("the controller's leader is changing");
  }
  // An earlier process of this folder, which was let in and did not come to write that down.
  const Offset replaces = answer->other.has_value() ? answer->other->epoch : Offset{};
  RegisterAt(answer->leader_address, hops + 1, replaces);
}

void ClusterJoiner::TryLater(std::string_view why) {
  if (!std::exchange(said_waiting_, true)) {
    seams_.log.Info("waits until the cluster lets it in", {{"why", std::string(why)}});
  }
  seams_.executor.Cancel(timer_);
  timer_ = seams_.executor.PostAfter(options_.retry_every, [this] { AskSeeds(); });
}

}  // namespace sluice::broker
