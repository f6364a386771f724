#include "broker/controller.h"

#include <utility>

#include "common/check.h"
#include "common/record/record.h"
#include "common/status_macros.h"
#include "common/text.h"

namespace sluice::broker {
namespace {

/// Read from group 0's log at a time.
constexpr int64_t kReplayBytes = int64_t{1} << 20;

}  // namespace

void Controller::Start(std::unique_ptr<PartitionLog> log, Callback<absl::Status> done) {
  log_ = std::move(log);
  seams_.blocking.Post([this, done = std::move(done)]() mutable {
    auto loaded = LoadClusterState(seams_.store);
    seams_.executor.Post([this, loaded = std::move(loaded), done = std::move(done)]() mutable {
      if (!loaded.ok()) return done(loaded.status());
      static_cast<ClusterState&>(state_) = std::move(loaded->state);
      state_.dropping = std::move(loaded->dropping);
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
                     ClusterDelta delta;
                     for (const auto& batch : read->batches) {
                       if (batch.is_control()) continue;
                       if (absl::Status applied = ApplyBatch(batch, &delta); !applied.ok()) {
                         return done(applied);
                       }
                     }
                     if (read->next_offset <= applied_) {
                       return done(absl::InternalError(Cat("the controller's log gave nothing at ", applied_)));
                     }
                     applied_ = read->next_offset;
                     auto write = std::make_shared<Write>();
                     write->applied = applied_;
                     AddStoreChanges(state_, delta, &write->changes);
                     for (const auto& [id, topic] : delta.deleted) state_.dropping[id] = topic.partitions;
                     unsaved_ = std::move(write);
                     CatchUp(std::move(done));
                   });
}

absl::Status Controller::ApplyBatch(const record::Batch& batch, ClusterDelta* delta) {
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
    delta->Merge(state_.Apply(*change, record.offset));
  }
}

void Controller::Save(Callback<absl::Status> done) {
  seams_.blocking.Post([this, write = unsaved_, done = std::move(done)]() mutable {
    absl::Status saved = seams_.store.Apply(kControllerMachine, write->applied.value(), write->changes);
    seams_.executor.Post([this, saved = std::move(saved), done = std::move(done)]() mutable {
      if (saved.ok()) unsaved_ = nullptr;
      done(saved);
    });
  });
}

void Controller::ForgetDropped(const TopicId& id, Callback<absl::Status> done) {
  state_.dropping.erase(id);
  if (unsaved_ == nullptr) unsaved_ = std::make_shared<Write>(Write{.applied = applied_, .changes = {}});
  AddForgetDropped(id, &unsaved_->changes);
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
