#include "broker/topic_manager.h"

#include <algorithm>
#include <utility>

#include "broker/admission.h"
#include "broker/error.h"
#include "broker/limits.h"
#include "broker/placement.h"
#include "common/planted_bug.h"
#include "common/status_macros.h"
#include "common/text.h"

namespace sluice::broker {
namespace {

constexpr absl::Duration kLeaderRetryEvery = absl::Milliseconds(50);
/// How long a change waits for the controller to have a leader.
constexpr absl::Duration kLeaderWaitMax = absl::Seconds(5);
/// And for the nodes that its replicas are to be on: longer than a node takes from its registration on to be counted
/// on.
constexpr absl::Duration kNodesWaitMax = absl::Seconds(2);
/// How long one waits for a majority to have it; less than who passed it on waits.
constexpr absl::Duration kChangeWaitMax = absl::Seconds(10);
/// How many may be answered so and stay in the controller's line.
constexpr int kOverdueMax = 1000;
constexpr char kNotMade[] = "the change was not made: the controller waits for a majority of its nodes";
constexpr absl::Duration kNodesAskEvery = absl::Milliseconds(50);

TopicInfo InfoOf(const TopicRecord& topic) {
  return {.name = topic.name,
          .id = topic.id,
          .partitions = topic.partitions,
          .replicas = topic.replicas,
          .config = topic.config,
          .created_ms = topic.created_ms};
}

Error UnknownTopic(std::string_view name) {
  return MakeError(Reason::kUnknownTopic, Cat("there is no topic \"", name.substr(0, 249), "\""), name.substr(0, 249));
}

Error Invalid(const absl::Status& status, std::string_view topic) {
  const Reason reason = absl::IsUnavailable(status) ? Reason::kNotAvailable : Reason::kInvalidArgument;
  return MakeError(reason, std::string(Message(status)), topic.substr(0, 249));
}

// What is set now; what a topic has may be of an earlier version, with other bounds.
absl::Status CheckSettings(const TopicConfig& set) {
  for (const auto& [key, value] : set) {
    const std::string wrong = WrongTopicSetting(key, value);
    if (!wrong.empty()) return absl::InvalidArgumentError(Cat(key, ": ", wrong));
  }
  return absl::OkStatus();
}

absl::Status CheckConfigSize(const TopicConfig& config) {
  size_t bytes = 0;
  for (const auto& [key, value] : config) bytes += key.size() + value.size();
  if (bytes <= kTopicConfigBytesMax) return absl::OkStatus();
  return absl::InvalidArgumentError(
      Cat("the topic's settings are ", bytes, " bytes, ", kTopicConfigBytesMax, " are allowed"));
}

/// What a status of Controller::Decide or of opening logs means.
Error ChangeError(const absl::Status& status, std::string_view topic) {
  Reason reason = Reason::kOutcomeUnknown;
  if (absl::IsUnavailable(status)) reason = Reason::kNotAvailable;
  if (absl::IsResourceExhausted(status)) reason = ExhaustedReason(status);
  if (absl::IsDataLoss(status)) reason = Reason::kCorruptLog;
  if (absl::IsFailedPrecondition(status)) reason = Reason::kInvalidArgument;
  return MakeError(reason, std::string(Message(status)), topic.substr(0, 249));
}

}  // namespace

// ---- Where a change is decided -------------------------------------------------------------------------------------

void TopicManager::Apply(TopicChange change, Callback<Result<TopicInfo>> done) {
  TopicChange asked = change;
  Route(std::move(change), seams_.clock.Monotonic() + kLeaderWaitMax,
        [this, asked = std::move(asked), done = std::move(done)](Result<TopicChanged> changed) mutable {
          if (!changed.ok()) return done(changed.error());
          // Here, too: who asked may ask this node for the topic next.
          const Offset applied = changed.value().applied;
          seams_.controller.WaitApplied(applied, [this, asked = std::move(asked), changed = std::move(changed),
                                                  done = std::move(done)](absl::Status status) mutable {
            const TopicInfo& topic = changed.value().topic;
            if (status.ok()) return OnRouted(asked, topic, std::move(done));
            done(MakeError(Reason::kOutcomeUnknown, Cat("the change is committed: ", Message(status)), topic.name));
          });
        });
}

void TopicManager::Route(TopicChange change, absl::Duration until, Callback<Result<TopicChanged>> done) {
  const std::optional<NodeId> leader = seams_.controller.leader();
  const bool leads = seams_.controller.IsLeader();
  if (leads || (leader.has_value() && *leader != options_.node && seams_.forward != nullptr)) {
    // It may have lost its place since: then nothing was changed there, and the next one is asked.
    auto retry = [this, change, until, done = std::move(done)](Result<TopicChanged> changed) mutable {
      const bool again =
          !changed.ok() &&
          (changed.error().reason == Reason::kNotLeader ||
           (changed.error().reason == Reason::kOutcomeUnknown && Planted(PlantedBug::kRepeatUnknownChange)));
      if (!again || seams_.clock.Monotonic() >= until) return done(std::move(changed));
      RouteLater(std::move(change), until, std::move(done));
    };
    if (leads) return Decide(std::move(change), std::move(retry));
    return (*seams_.forward)(*leader, change, std::move(retry));
  }
  if (seams_.clock.Monotonic() >= until) {
    return done(MakeError(Reason::kNotAvailable, "the cluster's controller has no leader now",
                          std::string_view(NameOf(change)).substr(0, 249)));
  }
  RouteLater(std::move(change), until, std::move(done));
}

void TopicManager::RouteLater(TopicChange change, absl::Duration until, Callback<Result<TopicChanged>> done) {
  seams_.home.PostAfter(kLeaderRetryEvery, [this, change = std::move(change), until, done = std::move(done)]() mutable {
    Route(std::move(change), until, std::move(done));
  });
}

void TopicManager::Decide(TopicChange change, Callback<Result<TopicChanged>> done) {
  if (overdue_ >= kOverdueMax) {
    return done(MakeError(Reason::kNotAvailable, Cat(kNotMade, "; ", overdue_, " others wait as well"),
                          std::string_view(NameOf(change)).substr(0, 249)));
  }
  auto waiting = AnswerInTime(std::move(change), std::move(done));
  DecideUntil(seams_.clock.Monotonic() + kNodesWaitMax, std::move(waiting));
}

// A majority without room keeps what it is sent waiting, and what comes behind it, too.
std::shared_ptr<TopicManager::Waiting> TopicManager::AnswerInTime(TopicChange change,
                                                                  Callback<Result<TopicChanged>> done) {
  auto waiting = std::make_shared<Waiting>();
  const std::string name = NameOf(change);
  waiting->change = std::move(change);
  waiting->done = std::move(done);
  waiting->timer = seams_.home.PostAfter(kChangeWaitMax, [this, waiting, name] {
    waiting->timer = 0;
    if (waiting->decided) {
      return Answer(*waiting, MakeError(Reason::kOutcomeUnknown, "whether the change was made is not known yet",
                                        name.substr(0, 249)));
    }
    // It stays in the controller's line, but what it asks for, which may be large, does not.
    ++overdue_;
    if (!waiting->proposed) waiting->change = {};
    const std::string full = NoRoom();
    const Reason untried = full.empty() ? Reason::kNotAvailable : Reason::kDiskFull;
    const std::string_view how = waiting->proposed
                                     ? "the change is not written by a majority of the controller's nodes yet, and may "
                                       "still be made"
                                     : kNotMade;
    Answer(*waiting, MakeError(waiting->proposed ? Reason::kOutcomeUnknown : untried,
                               Cat(how, full.empty() ? "" : "; ", full), name.substr(0, 249)));
  });
  return waiting;
}

void TopicManager::Answer(Waiting& waiting, Result<TopicChanged> changed) {
  seams_.home.Cancel(std::exchange(waiting.timer, 0));
  if (waiting.done != nullptr) std::exchange(waiting.done, nullptr)(std::move(changed));
}

std::string TopicManager::NoRoom() const {
  const std::vector<NodeId> nodes = seams_.without_room == nullptr ? std::vector<NodeId>() : seams_.without_room();
  return nodes.empty() ? std::string() : DescribeFull(nodes);
}

void TopicManager::DecideUntil(absl::Duration until, std::shared_ptr<Waiting> waiting) {
  if (waiting->done == nullptr) {
    --overdue_;
    return;
  }
  const std::string name = NameOf(waiting->change);
  if (!seams_.controller.IsLeader()) {
    return Answer(*waiting,
                  MakeError(Reason::kNotLeader, "this node does not lead the controller", name.substr(0, 249)));
  }
  auto verdict = std::make_shared<Verdict>();
  seams_.controller.Decide(
      [this, verdict, waiting](const ControllerState& state) -> Decided {
        if (waiting->done == nullptr) return absl::CancelledError("nobody waits for it any more");
        Decided decided =
            std::visit([&](const auto& spec) { return DecideOne(spec, state, verdict.get()); }, waiting->change);
        waiting->proposed = decided.ok() && decided->has_value();
        return decided;
      },
      [this, until, name, verdict, waiting](absl::Status status) mutable {
        const bool awaited = waiting->done != nullptr;
        if (!awaited) --overdue_;
        if (!awaited && (!waiting->proposed || verdict->later)) return;
        // What was made late is made all the same.
        if (!awaited || !verdict->later || seams_.clock.Monotonic() >= until) {
          waiting->decided = true;
          return OnDecided(std::move(*verdict), std::move(status), name,
                           [this, waiting](Result<TopicChanged> changed) { Answer(*waiting, std::move(changed)); });
        }
        seams_.home.PostAfter(kNodesAskEvery, [this, until, waiting = std::move(waiting)]() mutable {
          DecideUntil(until, std::move(waiting));
        });
      });
}

void TopicManager::OnDecided(Verdict verdict, absl::Status status, const std::string& name,
                             Callback<Result<TopicChanged>> done) {
  // A refusal of one who may lead no more says nothing of the cluster.
  if (absl::IsUnavailable(status) && (verdict.refused.has_value() || !seams_.controller.IsLeader())) {
    return done(MakeError(Reason::kNotLeader, std::string(Message(status)), name.substr(0, 249)));
  }
  if (verdict.refused.has_value()) return done(*std::move(verdict.refused));
  if (absl::IsUnknown(status)) {
    // Perhaps committed, and not saved.
    const TopicId id = verdict.topic.id;
    seams_.reconciler.Refresh(id);
    return seams_.reconciler.Settle(
        id, [status, name, done = std::move(done)](const absl::Status&) mutable { done(ChangeError(status, name)); });
  }
  if (!status.ok()) return done(ChangeError(status, name));
  // As it is by now: what the verdict says was true before the change.
  const auto& topics = seams_.controller.state().topics;
  if (const auto it = topics.find(verdict.topic.id); it != topics.end()) verdict.topic = InfoOf(it->second);
  if (verdict.created) {
    seams_.log.Info("topic created", {{"topic", verdict.topic.name},
                                      {"topic_id", verdict.topic.id},
                                      {"partitions", verdict.topic.partitions},
                                      {"replicas", verdict.topic.replicas}});
  }
  done(TopicChanged{.topic = std::move(verdict.topic), .applied = seams_.controller.applied()});
}

// Committed, and applied here.
void TopicManager::OnRouted(const TopicChange& change, TopicInfo changed, Callback<Result<TopicInfo>> done) {
  const TopicId id = changed.id;
  const bool created = std::holds_alternative<CreateTopicSpec>(change);
  const bool deleted = std::holds_alternative<DeleteTopicSpec>(change);
  seams_.reconciler.Settle(
      id, [this, created, deleted, topic = std::move(changed), done = std::move(done)](absl::Status settled) mutable {
        if (deleted) {
          // The topic is gone whatever becomes of its files.
          seams_.log.Info("topic deleted", {{"topic", topic.name}});
          return done(std::move(topic));
        }
        // In a cluster it stands: other nodes serve it, and this one goes on trying, and says so.
        if (settled.ok() || seams_.controller.state().nodes.size() > 1) return done(std::move(topic));
        if (created) return UndoCreate(std::move(topic), std::move(settled), std::move(done));
        done(MakeError(Reason::kOutcomeUnknown,
                       Cat("the change is committed, but not in force yet: ", settled.ToString()), topic.name));
      });
}

// The logs could not be made (a full disk, mostly). Where there is nobody else to make them, take the topic back, so
// that the error means "there is none".
void TopicManager::UndoCreate(TopicInfo topic, absl::Status why, Callback<Result<TopicInfo>> done) {
  const TopicId id = topic.id;
  auto undone = [this, topic, why = std::move(why), done = std::move(done)](absl::Status committed) mutable {
    if (!committed.ok()) {
      return done(MakeError(Reason::kOutcomeUnknown,
                            Cat("the topic is made, but its logs are not, which is tried again: ", why.ToString()),
                            topic.name));
    }
    const TopicId gone = topic.id;
    seams_.reconciler.Settle(gone, [name = topic.name, why = std::move(why),
                                    done = std::move(done)](absl::Status) mutable { done(ChangeError(why, name)); });
  };
  seams_.controller.Decide(
      [id](const ControllerState& state) -> Decided {
        if (!state.topics.contains(id)) return std::nullopt;
        return ControllerChange(TopicDeleted{id});
      },
      std::move(undone));
}

// ---- The decisions -------------------------------------------------------------------------------------------------

TopicId TopicManager::DrawId() {
  const uint64_t high = seams_.random.Next();
  return Uuid::FromRandom(high, seams_.random.Next());
}

// A node alone, in no cluster yet, keeps to what 0.1 can read: logs that it begins by itself.
absl::StatusOr<std::vector<PartitionAssignment>> TopicManager::Place(const ControllerState& state, int32_t count,
                                                                     int32_t* replicas) {
  if (state.feature_level == 0 || state.nodes.empty()) {
    if (state.nodes.size() > 1 && *replicas != 1 && *replicas <= static_cast<int32_t>(state.nodes.size())) {
      return absl::UnavailableError(
          Cat("replicas: the cluster's feature level is 0, at which a topic has one replica; it rises once all ",
              state.nodes.size(), " nodes are of a version that knows level 1: try again"));
    }
    if (*replicas == 0) *replicas = 1;
    if (*replicas != 1 && state.nodes.size() > 1) {
      return absl::InvalidArgumentError(
          Cat("replicas: ", *replicas, " were asked for, and there are ", state.nodes.size(), " nodes"));
    }
    if (*replicas != 1) {
      return absl::InvalidArgumentError(Cat("replicas: expected 1, as there is one node, got ", *replicas));
    }
    return std::vector<PartitionAssignment>(static_cast<size_t>(count), {{options_.node, Uuid()}});
  }
  SLUICE_ASSIGN_OR_RETURN(*replicas, ResolveReplicas(state, *replicas));
  return broker::Place(state, count, *replicas, seams_.random);
}

absl::Status TopicManager::CheckSize(const TopicRecord& topic) {
  const size_t bytes = EncodeTopicRecord(topic).size();
  if (bytes <= kTopicBytesMax) return absl::OkStatus();
  return absl::InvalidArgumentError(Cat("partitions: ", topic.partitions, " partitions of ", topic.replicas,
                                        " replicas take ", bytes, " bytes of the cluster's metadata, and a topic has ",
                                        kTopicBytesMax, ": ask for fewer partitions or replicas"));
}

absl::Status TopicManager::CheckMessageBytes(const TopicConfig& set) const {
  if (!set.contains("max.message.bytes")) return absl::OkStatus();
  SLUICE_ASSIGN_OR_RETURN(const TopicSettings settings, ParseTopicSettings(set, options_.defaults));
  if (settings.message_bytes_max <= options_.message_bytes_max) return absl::OkStatus();
  return absl::InvalidArgumentError(Cat("max.message.bytes: ", settings.message_bytes_max,
                                        " is more than limits.message_bytes of the nodes' configuration, ",
                                        options_.message_bytes_max, ": such a batch would never reach the broker"));
}

TopicManager::Decided TopicManager::DecideOne(const CreateTopicSpec& spec, const ControllerState& state,
                                              Verdict* verdict) {
  const auto refuse = [&](Error error) -> Decided {
    verdict->refused = std::move(error);
    return std::nullopt;
  };
  absl::Status good = CheckTopicName(spec.name, spec.internal);
  if (good.ok()) good = CheckConfigSize(spec.config);
  if (good.ok()) good = CheckSettings(spec.config);
  if (good.ok()) good = ParseTopicSettings(spec.config, options_.defaults).status();
  if (good.ok()) good = CheckMessageBytes(spec.config);
  TopicRecord topic;
  topic.partitions = spec.partitions == 0 ? options_.default_partitions : spec.partitions;
  if (good.ok() && (topic.partitions < 1 || topic.partitions > kPartitionsMax)) {
    good = absl::InvalidArgumentError(Cat("partitions: expected 1 to ", kPartitionsMax, ", got ", spec.partitions));
  }
  if (!good.ok()) return refuse(Invalid(good, spec.name));
  if (state.FindTopic(spec.name) != nullptr) {
    return refuse(MakeError(Reason::kTopicExists, Cat("topic \"", spec.name, "\" exists"), spec.name));
  }
  if (std::string full = NoRoom(); !full.empty()) {
    return refuse(MakeError(Reason::kDiskFull, std::move(full), spec.name));
  }
  topic.replicas = spec.replicas == 0 ? options_.default_replicas : spec.replicas;
  auto assignments = Place(state, topic.partitions, &topic.replicas);
  verdict->later = absl::IsUnavailable(assignments.status());
  if (!assignments.ok()) return refuse(Invalid(assignments.status(), spec.name));
  topic.assignments = *std::move(assignments);
  topic.id = DrawId();
  topic.name = spec.name;
  topic.config = spec.config;
  topic.created_ms = absl::ToUnixMillis(seams_.clock.Wall());
  if (good = CheckSize(topic); !good.ok()) return refuse(Invalid(good, spec.name));
  verdict->topic = InfoOf(topic);
  verdict->created = true;
  return ControllerChange(TopicCreated{std::move(topic)});
}

TopicManager::Decided TopicManager::DecideOne(const AlterTopicSpec& spec, const ControllerState& state,
                                              Verdict* verdict) {
  const auto refuse = [&](Error error) -> Decided {
    verdict->refused = std::move(error);
    return std::nullopt;
  };
  const TopicRecord* topic = state.FindTopic(spec.name);
  if (topic == nullptr) return refuse(UnknownTopic(spec.name));
  TopicConfig config = topic->config;
  // Before anything of it is quoted back.
  TopicConfig named = spec.set;
  for (const auto& key : spec.unset) named.try_emplace(key);
  if (const absl::Status good = CheckConfigSize(named); !good.ok()) return refuse(Invalid(good, spec.name));
  for (const auto& key : spec.unset) {
    // Unset of what is not set is fine; of what is no setting at all it is a slip of the pen.
    if (const std::string unknown = UnknownTopicSetting(key); !unknown.empty()) {
      return refuse(Invalid(absl::InvalidArgumentError(Cat(key, ": ", unknown)), spec.name));
    }
    config.erase(key);
  }
  if (const absl::Status good = CheckSettings(spec.set); !good.ok()) return refuse(Invalid(good, spec.name));
  for (const auto& [key, value] : spec.set) config[key] = value;
  if (auto parsed = ParseTopicSettings(config, options_.defaults); !parsed.ok()) {
    return refuse(Invalid(parsed.status(), spec.name));
  }
  // In `config` with all the rest, for it was good together.
  if (spec.set.contains("max.message.bytes")) {
    if (const absl::Status good = CheckMessageBytes(config); !good.ok()) return refuse(Invalid(good, spec.name));
  }
  if (const absl::Status good = CheckConfigSize(config); !good.ok()) return refuse(Invalid(good, spec.name));
  verdict->topic = InfoOf(*topic);
  if (config == topic->config) return std::nullopt;
  return ControllerChange(TopicAltered{topic->id, std::move(config)});
}

TopicManager::Decided TopicManager::DecideOne(const AddPartitionsSpec& spec, const ControllerState& state,
                                              Verdict* verdict) {
  const auto refuse = [&](Error error) -> Decided {
    verdict->refused = std::move(error);
    return std::nullopt;
  };
  const TopicRecord* topic = state.FindTopic(spec.name);
  if (topic == nullptr) return refuse(UnknownTopic(spec.name));
  if (spec.partitions <= topic->partitions || spec.partitions > kPartitionsMax) {
    return refuse(
        Invalid(absl::InvalidArgumentError(Cat("partitions: expected a new total from ", topic->partitions + 1, " to ",
                                               kPartitionsMax, ", got ", spec.partitions)),
                spec.name));
  }
  if (std::string full = NoRoom(); !full.empty()) {
    return refuse(MakeError(Reason::kDiskFull, std::move(full), spec.name));
  }
  int32_t replicas = topic->replicas;
  auto assignments = Place(state, spec.partitions - topic->partitions, &replicas);
  verdict->later = absl::IsUnavailable(assignments.status());
  if (!assignments.ok()) return refuse(Invalid(assignments.status(), spec.name));
  TopicRecord widened = *topic;
  widened.partitions = spec.partitions;
  widened.assignments.insert(widened.assignments.end(), assignments->begin(), assignments->end());
  if (const absl::Status good = CheckSize(widened); !good.ok()) return refuse(Invalid(good, spec.name));
  verdict->topic = InfoOf(*topic);
  return ControllerChange(
      PartitionsAdded{.id = topic->id, .partitions = spec.partitions, .assignments = *std::move(assignments)});
}

TopicManager::Decided TopicManager::DecideOne(const DeleteTopicSpec& spec, const ControllerState& state,
                                              Verdict* verdict) {
  const TopicRecord* topic = state.FindTopic(spec.name);
  if (topic == nullptr) {
    verdict->refused = UnknownTopic(spec.name);
    return std::nullopt;
  }
  verdict->topic = InfoOf(*topic);
  return ControllerChange(TopicDeleted{topic->id});
}

}  // namespace sluice::broker
