#include "broker/controller.h"

#include <utility>
#include <variant>

#include "absl/strings/numbers.h"
#include "common/check.h"
#include "common/record/record.h"
#include "common/status_macros.h"
#include "common/text.h"

namespace sluice::broker {
namespace {

constexpr std::string_view kMachine = "controller";
// Keys of the metadata store: "topic/<uuid>" holds a TopicState, "dropping/<uuid>" the number of its partitions.
constexpr std::string_view kTopicPrefix = "topic/";
constexpr std::string_view kDroppingPrefix = "dropping/";
/// Read from group 0's log at a time.
constexpr int64_t kReplayBytes = int64_t{1} << 20;

absl::StatusOr<TopicId> IdOfKey(std::string_view key, std::string_view prefix) {
  const auto id = Uuid::Parse(key.substr(prefix.size()));
  if (!id) return absl::DataLossError(Cat("metadata store: key \"", key, "\" names no topic"));
  return *id;
}

}  // namespace

absl::StatusOr<Controller::Loaded> Controller::Load(storage::MetadataStore& store) {
  Loaded loaded;
  SLUICE_ASSIGN_OR_RETURN(const int64_t applied, store.Applied(kMachine));
  loaded.applied = Offset(applied);
  SLUICE_ASSIGN_OR_RETURN(const auto topics, store.Scan(kMachine, kTopicPrefix));
  for (const auto& entry : topics) {
    SLUICE_ASSIGN_OR_RETURN(const TopicId id, IdOfKey(entry.key, kTopicPrefix));
    auto topic = DecodeTopicRecord(entry.value);
    if (!topic.ok() || topic->id != id) {
      return absl::DataLossError(Cat("metadata store: ", entry.key, ": ", topic.status().ToString()));
    }
    loaded.state.by_name[topic->name] = id;
    loaded.state.topics[id] = *std::move(topic);
  }
  SLUICE_ASSIGN_OR_RETURN(const auto dropping, store.Scan(kMachine, kDroppingPrefix));
  for (const auto& entry : dropping) {
    SLUICE_ASSIGN_OR_RETURN(const TopicId id, IdOfKey(entry.key, kDroppingPrefix));
    int32_t partitions = 0;
    if (!absl::SimpleAtoi(entry.value, &partitions) || partitions < 1) {
      return absl::DataLossError(Cat("metadata store: ", entry.key, " is \"", entry.value, "\""));
    }
    loaded.state.dropping[id] = partitions;
  }
  return loaded;
}

void Controller::Start(std::unique_ptr<PartitionLog> log, Callback<absl::Status> done) {
  log_ = std::move(log);
  seams_.blocking.Post([this, done = std::move(done)]() mutable {
    auto loaded = Load(seams_.store);
    seams_.executor.Post([this, loaded = std::move(loaded), done = std::move(done)]() mutable {
      if (!loaded.ok()) return done(loaded.status());
      state_ = std::move(loaded->state);
      applied_ = loaded->applied;
      if (const Offset end = log_->log().bounds().high_watermark; applied_ > end) {
        return done(absl::DataLossError(Cat("the metadata store has applied the controller's log up to ", applied_,
                                            ", but that log ends at ", end,
                                            ": the journal and meta/ are not of one data folder")));
      }
      CatchUp(std::move(done));
    });
  });
}

void Controller::Change(ControllerChange change, Callback<absl::Status> done) {
  SLUICE_CHECK(seams_.executor.IsCurrent());
  if (log_ == nullptr || stopped_) return done(absl::UnavailableError("the controller is not running"));
  // What could not be saved before must be in the store first; else nothing is proposed.
  CatchUp([this, change = std::move(change), done = std::move(done)](absl::Status ready) mutable {
    if (!ready.ok()) return done(ready);
    record::BatchBuilder builder;
    const std::string value = EncodeControllerChange(change);
    absl::Status appended = builder.Append(absl::ToUnixMillis(seams_.clock.Wall()), std::nullopt, value);
    if (!appended.ok()) return done(appended);
    auto batch = builder.Build();
    if (!batch.ok()) return done(batch.status());
    log_->log().Propose(
        *std::move(batch), std::nullopt,
        [this, done = std::move(done)](absl::StatusOr<replication::Committed> committed) mutable {
          if (!committed.ok()) return done(committed.status());
          CatchUp([done = std::move(done)](absl::Status applied) mutable {
            if (applied.ok()) return done(absl::OkStatus());
            done(absl::UnknownError(Cat("the change is committed, but not applied yet: ", applied.ToString())));
          });
        });
  });
}

void Controller::CatchUp(Callback<absl::Status> done) {
  if (unsaved_ != nullptr) {
    return Save([this, done = std::move(done)](absl::Status saved) mutable {
      if (!saved.ok()) return done(saved);
      CatchUp(std::move(done));
    });
  }
  if (stopped_) return done(absl::UnavailableError("the controller is stopping"));
  if (applied_ >= log_->log().bounds().high_watermark) return done(absl::OkStatus());
  log_->log().Read({.offset = applied_, .bytes_max = kReplayBytes},
                   [this, done = std::move(done)](absl::StatusOr<replication::ReadResult> read) mutable {
                     if (!read.ok()) return done(read.status());
                     auto write = std::make_shared<Write>();
                     for (const auto& batch : read->batches) {
                       if (batch.is_control()) continue;
                       if (absl::Status applied = ApplyBatch(batch, &write->changes); !applied.ok()) {
                         return done(applied);
                       }
                     }
                     if (read->next_offset <= applied_) {
                       return done(absl::InternalError(Cat("the controller's log gave nothing at ", applied_)));
                     }
                     applied_ = read->next_offset;
                     write->applied = applied_;
                     unsaved_ = std::move(write);
                     CatchUp(std::move(done));
                   });
}

absl::Status Controller::ApplyBatch(const record::Batch& batch, storage::MetadataChanges* changes) {
  SLUICE_ASSIGN_OR_RETURN(auto reader, record::RecordReader::Open(batch.view()));
  record::Record record;
  for (;;) {
    SLUICE_ASSIGN_OR_RETURN(const bool more, reader.Next(&record));
    if (!more) return absl::OkStatus();
    if (record.offset < applied_) continue;
    auto change = DecodeControllerChange(record.value.value_or(std::string_view()));
    if (!change.ok()) {
      return absl::DataLossError(Cat("the controller's log at offset ", record.offset, ": ", Message(change.status())));
    }
    ApplyChange(*change, changes);
  }
}

// Changes are checked before they are proposed; one whose topic is gone by now changes nothing.
void Controller::ApplyChange(const ControllerChange& change, storage::MetadataChanges* changes) {
  const auto put = [this, changes](const TopicId& id) {
    changes->Put(Cat(kTopicPrefix, id), EncodeTopicRecord(state_.topics.at(id)));
  };
  if (const auto* created = std::get_if<TopicCreated>(&change)) {
    const TopicRecord& topic = created->topic;
    if (state_.by_name.contains(topic.name)) return;
    state_.by_name[topic.name] = topic.id;
    state_.topics[topic.id] = topic;
    return put(topic.id);
  }
  if (const auto* deleted = std::get_if<TopicDeleted>(&change)) {
    const auto it = state_.topics.find(deleted->id);
    if (it == state_.topics.end()) return;
    changes->Delete(Cat(kTopicPrefix, deleted->id));
    changes->Put(Cat(kDroppingPrefix, deleted->id), Cat(it->second.partitions));
    state_.dropping[deleted->id] = it->second.partitions;
    state_.by_name.erase(it->second.name);
    state_.topics.erase(it);
    return;
  }
  if (const auto* altered = std::get_if<TopicAltered>(&change)) {
    const auto it = state_.topics.find(altered->id);
    if (it == state_.topics.end()) return;
    it->second.config = altered->config;
    return put(altered->id);
  }
  const auto& added = std::get<PartitionsAdded>(change);
  const auto it = state_.topics.find(added.id);
  if (it == state_.topics.end() || added.partitions <= it->second.partitions) return;
  it->second.partitions = added.partitions;
  it->second.nodes.insert(it->second.nodes.end(), added.nodes.begin(), added.nodes.end());
  put(added.id);
}

void Controller::Save(Callback<absl::Status> done) {
  seams_.blocking.Post([this, write = unsaved_, done = std::move(done)]() mutable {
    absl::Status saved = seams_.store.Apply(kMachine, write->applied.value(), write->changes);
    seams_.executor.Post([this, saved = std::move(saved), done = std::move(done)]() mutable {
      if (saved.ok()) unsaved_ = nullptr;
      done(saved);
    });
  });
}

void Controller::ForgetDropped(const TopicId& id, Callback<absl::Status> done) {
  state_.dropping.erase(id);
  if (unsaved_ == nullptr) unsaved_ = std::make_shared<Write>(Write{.applied = applied_, .changes = {}});
  unsaved_->changes.Delete(Cat(kDroppingPrefix, id));
  Save(std::move(done));
}

void Controller::Stop(absl::AnyInvocable<void()> done) {
  stopped_ = true;
  if (log_ == nullptr) return done();
  log_->Stop([this, done = std::move(done)]() mutable {
    log_.reset();
    done();
  });
}

}  // namespace sluice::broker
