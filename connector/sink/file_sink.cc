#include <algorithm>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "common/check.h"
#include "common/record/record.h"
#include "common/status_macros.h"
#include "common/text.h"
#include "connector/dead_letters.h"
#include "connector/sink/encoder.h"
#include "connector/sink/path_template.h"
#include "connector/sink/sink.h"
#include "connector/sink/sink_state.h"
#include "connector/sink/target.h"

namespace sluice::connector {

namespace {

/// Files of one chunk that are written side by side; a chunk with more paths is gone through again for the rest.
constexpr size_t kOpenFilesMax = 16;
/// Each holds a row group.
constexpr size_t kOpenParquetFilesMax = 4;
/// Dead letters of a chunk that are kept in memory.
constexpr size_t kLetterBytesMax = size_t{4} << 20;
/// How long a range that is known to be in the log may take to come.
constexpr absl::Duration kReadTimeout = absl::Seconds(60);

struct Partition {
  PartitionId id;
  SinkState state;
  int64_t version = -1;  // of `state` in the state store
  Offset end_seen;       // of the topic, when the sink was opened
  Offset finish_at;

  // The chunk being collected: [chunk_first, chunk_next), empty while records is 0.
  Offset chunk_first;
  Offset chunk_next;
  int64_t chunk_records = 0;
  int64_t chunk_bytes = 0;
  absl::Duration chunk_opened;
  // Its batches, while they all fit in memory.
  std::vector<client::ConsumedBatch> held;
  bool held_all = true;
};

class FileSinkImpl : public FileSink {
 public:
  FileSinkImpl(Options options, const Seams& seams, PathTemplate path)
      : options_(std::move(options)),
        seams_(seams),
        path_(std::move(path)),
        dead_letters_(DeadLettersOf(*seams.client, options_.topic)),
        admin_(seams.client->NewAdmin()),
        consumer_(seams.client->NewConsumer()) {
    if (path_.uses_event_time()) event_time_.emplace(options_.config.event_time);
  }

  absl::Status Open() override;
  absl::Status Step(absl::Duration timeout) override;
  absl::Status Finish(absl::FunctionRef<void()> after_each_step) override;
  void Wake() override { consumer_->Wake(); }
  SinkProgress progress() const override;

 private:
  using Batches = absl::AnyInvocable<absl::Status(const client::ConsumedBatch&)>;
  struct OpenFile {
    std::unique_ptr<OutputFile> file;
    std::unique_ptr<FileEncoder> encoder;
    int64_t records = 0;
  };
  // One pass over a plan's records: those of as many folders as may be open at once.
  struct Pass {
    std::map<std::string, OpenFile> files;  // by folder
    std::set<std::string> later;            // folders that found no place in this pass
    const std::set<std::string>* done;      // folders written by earlier passes
    SinkProgress* made;                     // by all passes
    std::vector<DeadLetter> dead_letters;
    size_t dead_letter_bytes = 0;
  };

  std::string StateKey(PartitionId partition) const {
    return Cat("sink/", options_.pipeline, "/", options_.name, "/", options_.topic, "/", partition);
  }
  std::string Where(PartitionId partition) const {
    return Cat("sink ", options_.pipeline, "/", options_.name, ", topic ", options_.topic, ", partition ", partition);
  }
  std::string SchemaKey() const {
    return Cat("sink/", options_.pipeline, "/", options_.name, "/", options_.topic, "/schema");
  }
  absl::Status LoadState(const std::string& topic_id, Partition* p);
  bool Due(const Partition& p) const;
  absl::Status Collect(client::ConsumedBatch batch);
  absl::Status WriteChunk(Partition& p);
  absl::Status CarryOut(Partition& p);
  absl::Status SendLetters(const SinkPlan& plan, Pass* pass);
  absl::Status CommitFiles(Pass& pass);
  absl::Status Save(Partition& p, SinkState next);
  absl::Status DecideSchema(Partition& p, Offset first, Offset next);
  absl::StatusOr<Schema> InferSchema(Partition& p, Offset first, Offset next);
  absl::Status AddRecord(Format& format, const SinkPlan& plan, const SinkRecord& record,
                         const std::vector<record::Header>& headers, const std::set<std::string>* only, Pass* pass);
  absl::Status ForEachBatch(Partition& p, Offset first, Offset next, Batches visit);
  absl::Status ForEachRecord(Partition& p, Offset first, Offset next,
                             absl::AnyInvocable<absl::Status(const record::Record&)> visit);

  const Options options_;
  const Seams seams_;
  const size_t open_files_max_ = options_.config.kind == SinkKind::kParquet ? kOpenParquetFilesMax : kOpenFilesMax;
  const PathTemplate path_;
  std::unique_ptr<Target> target_;  // once opened
  DeadLetterQueue dead_letters_;
  const std::unique_ptr<client::Admin> admin_;
  const std::unique_ptr<client::Consumer> consumer_;
  std::optional<EventTimeReader> event_time_;
  std::vector<Partition> partitions_;
  bool ends_seen_ = false;  // of all partitions
  int64_t held_bytes_ = 0;
  SinkProgress progress_;
};

absl::Status FileSinkImpl::Open() {
  SLUICE_ASSIGN_OR_RETURN(const client::TopicDescription topic, admin_->DescribeTopic(options_.topic));
  const std::string topic_id = topic.topic.id.ToString();
  for (int32_t i = 0; i < options_.partitions; ++i) {
    Partition& p = partitions_.emplace_back();
    p.id = PartitionId(i);
    SLUICE_RETURN_IF_ERROR(LoadState(topic_id, &p));
  }
  ends_seen_ = true;
  SLUICE_ASSIGN_OR_RETURN(target_, MakeTarget(options_.config, seams_.files));
  for (Partition& p : partitions_) {
    if (p.state.plan.has_value()) SLUICE_RETURN_IF_ERROR(CarryOut(p));
    // Only now: what a plan was made with is what it is carried out with.
    const bool declared = options_.config.kind == SinkKind::kParquet && !options_.config.infer_schema;
    if (declared) p.state.schema = options_.config.columns;
    p.chunk_first = p.chunk_next = p.state.committed_next;
    consumer_->Assign({options_.topic, p.id}, p.state.committed_next);
  }
  return absl::OkStatus();
}

absl::Status FileSinkImpl::LoadState(const std::string& topic_id, Partition* p) {
  SLUICE_ASSIGN_OR_RETURN(const StateEntry entry, seams_.state->Get(StateKey(p->id)));
  p->version = entry.version;
  SLUICE_ASSIGN_OR_RETURN(
      const client::OffsetAnswer earliest,
      admin_->ListOffset({.topic = options_.topic, .partition = p->id, .kind = client::OffsetQuery::Kind::kEarliest}));
  const Offset log_start = earliest.offset.value_or(Offset(0));
  SLUICE_ASSIGN_OR_RETURN(const client::OffsetAnswer latest,
                          admin_->ListOffset({.topic = options_.topic, .partition = p->id}));
  p->end_seen = latest.offset.value_or(Offset(0));
  if (entry.version < 0) {
    p->state.committed_next = log_start;
    p->state.topic_id = topic_id;
    return absl::OkStatus();
  }
  SLUICE_ASSIGN_OR_RETURN(p->state, DecodeSinkState(entry.value));
  if (!p->state.topic_id.empty() && p->state.topic_id != topic_id) {
    return absl::DataLossError(Cat(Where(p->id), ": topic ", options_.topic,
                                   " was deleted and made anew since this sink wrote last (it was ", p->state.topic_id,
                                   ", now it is ", topic_id,
                                   "), and new files could take the names of those that are there: give the pipeline "
                                   "another name, and the sink another place in `to`"));
  }
  p->state.topic_id = topic_id;
  if (log_start > p->state.committed_next) {
    return absl::DataLossError(Cat(Where(p->id), ": offsets ", p->state.committed_next, " to ", log_start - 1,
                                   " were deleted from the topic before the sink wrote them: raise the topic's "
                                   "retention, and give the pipeline another name, and the sink another place in `to`, "
                                   "to begin anew"));
  }
  return absl::OkStatus();
}

bool FileSinkImpl::Due(const Partition& p) const {
  const RollConfig& roll = options_.config.roll;
  if (p.chunk_records == 0) return false;
  return (roll.records > 0 && p.chunk_records >= roll.records) || (roll.bytes > 0 && p.chunk_bytes >= roll.bytes) ||
         (roll.age > absl::ZeroDuration() && seams_.clock->Monotonic() - p.chunk_opened >= roll.age);
}

absl::Status FileSinkImpl::Collect(client::ConsumedBatch batch) {
  const auto index = static_cast<size_t>(batch.source.partition.value());
  SLUICE_CHECK(index < partitions_.size()) << "a batch of partition " << index << " that nobody assigned";
  Partition& p = partitions_[index];
  if (p.chunk_records == 0) p.chunk_opened = seams_.clock->Monotonic();
  const auto size = static_cast<int64_t>(batch.batch.size_bytes());
  p.chunk_records += batch.batch.next_offset() - std::max(batch.first_offset, batch.batch.base_offset());
  p.chunk_bytes += size;
  p.chunk_next = batch.batch.next_offset();
  if (p.held_all && held_bytes_ + size <= options_.memory_bytes) {
    // A batch shares the block of the answer that it came in: what stays must not keep all of that.
    SLUICE_ASSIGN_OR_RETURN(batch.batch, record::Batch::FromStored(Bytes::Copy(batch.batch.bytes().view())));
    held_bytes_ += size;
    p.held.push_back(std::move(batch));
  } else if (p.held_all) {
    for (const client::ConsumedBatch& kept : p.held) held_bytes_ -= static_cast<int64_t>(kept.batch.size_bytes());
    p.held.clear();
    p.held_all = false;
  }
  return Due(p) ? WriteChunk(p) : absl::OkStatus();
}

absl::Status FileSinkImpl::Step(absl::Duration timeout) {
  SLUICE_ASSIGN_OR_RETURN(std::vector<client::ConsumedBatch> batches, consumer_->PollBatches(timeout));
  for (client::ConsumedBatch& batch : batches) SLUICE_RETURN_IF_ERROR(Collect(std::move(batch)));
  for (Partition& p : partitions_) {
    if (Due(p)) SLUICE_RETURN_IF_ERROR(WriteChunk(p));
  }
  return absl::OkStatus();
}

absl::Status FileSinkImpl::Finish(absl::FunctionRef<void()> after_each_step) {
  for (Partition& p : partitions_) {
    SLUICE_ASSIGN_OR_RETURN(const client::OffsetAnswer latest,
                            admin_->ListOffset({.topic = options_.topic, .partition = p.id}));
    p.finish_at = latest.offset.value_or(Offset(0));
  }
  absl::Duration progressed = seams_.clock->Monotonic();
  for (;;) {
    Offset sum_before, sum_after;
    bool all = true;
    for (const Partition& p : partitions_) {
      const Offset position = consumer_->Position({options_.topic, p.id}).value_or(p.finish_at);
      sum_before += position.value();
      all = all && position >= p.finish_at;
    }
    if (all) break;
    SLUICE_RETURN_IF_ERROR(Step(absl::Milliseconds(500)));
    after_each_step();
    for (const Partition& p : partitions_) {
      sum_after += consumer_->Position({options_.topic, p.id}).value_or(p.finish_at).value();
    }
    if (sum_after > sum_before) progressed = seams_.clock->Monotonic();
    if (seams_.clock->Monotonic() - progressed > kReadTimeout) {
      return absl::DeadlineExceededError(Cat("sink ", options_.pipeline, "/", options_.name, ": topic ", options_.topic,
                                             " gave nothing for ", absl::FormatDuration(kReadTimeout),
                                             " before its end"));
    }
  }
  for (Partition& p : partitions_) {
    if (p.chunk_records == 0) continue;
    SLUICE_RETURN_IF_ERROR(WriteChunk(p));
    after_each_step();
  }
  return absl::OkStatus();
}

/// The partition's state is `next` once that is stored.
absl::Status FileSinkImpl::Save(Partition& p, SinkState next) {
  auto version = seams_.state->Put(StateKey(p.id), EncodeSinkState(next), p.version);
  if (!version.ok()) {
    if (absl::IsAborted(version.status())) {
      return absl::AbortedError(
          Cat(Where(p.id), ": another connector drives this sink; this one begins again from what is there"));
    }
    return version.status();
  }
  p.version = *version;
  p.state = std::move(next);
  return absl::OkStatus();
}

absl::Status FileSinkImpl::WriteChunk(Partition& p) {
  if (options_.config.kind == SinkKind::kParquet && !p.state.schema.has_value()) {
    SLUICE_RETURN_IF_ERROR(DecideSchema(p, p.chunk_first, p.chunk_next));
  }
  SLUICE_ASSIGN_OR_RETURN(const Offset dead_letters_from, dead_letters_.End());
  SinkState planned = p.state;
  planned.plan = SinkPlan{p.chunk_first, p.chunk_next, dead_letters_from};
  SLUICE_RETURN_IF_ERROR(Save(p, std::move(planned)));
  SLUICE_RETURN_IF_ERROR(CarryOut(p));
  p.chunk_first = p.chunk_next;
  p.chunk_records = 0;
  p.chunk_bytes = 0;
  for (const client::ConsumedBatch& kept : p.held) held_bytes_ -= static_cast<int64_t>(kept.batch.size_bytes());
  p.held.clear();
  p.held_all = true;
  return absl::OkStatus();
}

// Every file and letter of the plan, then the commit. Runs again after a crash with the same result.
absl::Status FileSinkImpl::CarryOut(Partition& p) {
  const SinkPlan plan = *p.state.plan;
  const SinkConfig& config = options_.config;
  const std::unique_ptr<Format> format =
      config.kind == SinkKind::kRaw
          ? MakeRawFormat(config.codec, config.codec_level)
          : MakeParquetFormat(p.state.schema.value_or(Schema{}), config.codec, config.codec_level);
  std::set<std::string> only;  // folders of this pass; the first takes what comes
  std::set<std::string> done;
  SinkProgress made;
  for (bool first_pass = true; first_pass || !only.empty(); first_pass = false) {
    Pass pass;
    pass.done = &done;
    pass.made = &made;
    SLUICE_RETURN_IF_ERROR(ForEachRecord(p, plan.first, plan.next, [&](const record::Record& r) {
      const SinkRecord record{options_.topic, p.id, r.offset, r.timestamp_ms, r.key, r.value};
      return AddRecord(*format, plan, record, r.headers, first_pass ? nullptr : &only, &pass);
    }));
    if (first_pass) SLUICE_RETURN_IF_ERROR(SendLetters(plan, &pass));
    SLUICE_RETURN_IF_ERROR(CommitFiles(pass));
    for (const auto& [folder, file] : pass.files) done.insert(folder);
    only.clear();
    for (const std::string& folder : pass.later) {
      if (only.size() < open_files_max_) only.insert(folder);
    }
  }
  SinkState committed = p.state;
  committed.plan.reset();
  committed.committed_next = plan.next;
  SLUICE_RETURN_IF_ERROR(Save(p, std::move(committed)));
  progress_.records += made.records;
  progress_.dead_letters += made.dead_letters;
  progress_.files += made.files;
  progress_.file_bytes += made.file_bytes;
  return absl::OkStatus();
}

absl::Status FileSinkImpl::SendLetters(const SinkPlan& plan, Pass* pass) {
  SLUICE_RETURN_IF_ERROR(dead_letters_.Append(plan.dead_letters_from, pass->dead_letters).status());
  pass->made->dead_letters += static_cast<int64_t>(pass->dead_letters.size());
  pass->dead_letters.clear();
  pass->dead_letter_bytes = 0;
  return absl::OkStatus();
}

absl::Status FileSinkImpl::CommitFiles(Pass& pass) {
  for (auto& [folder, open] : pass.files) {
    SLUICE_RETURN_IF_ERROR(open.encoder->Finish());
    SLUICE_RETURN_IF_ERROR(open.file->Commit());
    pass.made->records += open.records;
    pass.made->files += 1;
    pass.made->file_bytes += open.file->bytes_written();
  }
  return absl::OkStatus();
}

absl::Status FileSinkImpl::AddRecord(Format& format, const SinkPlan& plan, const SinkRecord& record,
                                     const std::vector<record::Header>& headers, const std::set<std::string>* only,
                                     Pass* pass) {
  absl::Status fits = absl::OkStatus();
  int64_t event_time_ms = 0;
  if (event_time_.has_value()) {
    auto read = event_time_->Read(record.value.value_or(""));
    fits = read.status();
    if (read.ok()) event_time_ms = *read;
  }
  if (fits.ok()) fits = format.Prepare(record);
  if (!fits.ok()) {
    if (!absl::IsInvalidArgument(fits)) return fits;
    if (only != nullptr) return absl::OkStatus();
    DeadLetter letter{.timestamp_ms = record.timestamp_ms,
                      .reason = std::string(Message(fits)),
                      .whence = {{"sluice.sink", Cat(options_.pipeline, "/", options_.name)},
                                 {"sluice.topic", options_.topic},
                                 {"sluice.partition", std::to_string(record.partition.value())},
                                 {"sluice.offset", std::to_string(record.offset.value())}}};
    if (record.key.has_value()) letter.key = std::string(*record.key);
    if (record.value.has_value()) letter.value = std::string(*record.value);
    for (const record::Header& header : headers) {
      letter.headers.emplace_back(std::string(header.key),
                                  header.value.has_value() ? std::optional<std::string>(*header.value) : std::nullopt);
    }
    pass->dead_letter_bytes += record.value.value_or("").size() + record.key.value_or("").size();
    pass->dead_letters.push_back(std::move(letter));
    return pass->dead_letter_bytes < kLetterBytesMax ? absl::OkStatus() : SendLetters(plan, pass);
  }
  std::string folder = path_.Render(options_.topic, record.partition, record.timestamp_ms, event_time_ms);
  auto at = pass->files.find(folder);
  if (at == pass->files.end()) {
    const bool elsewhere = only != nullptr && only->count(folder) == 0;
    if (elsewhere || pass->files.size() >= open_files_max_) {
      if (pass->done->count(folder) == 0) pass->later.insert(std::move(folder));
      return absl::OkStatus();
    }
    OpenFile made;
    const std::string name =
        SinkFileName(options_.topic, record.partition, plan.first, plan.next - 1, format.extension());
    SLUICE_ASSIGN_OR_RETURN(made.file, target_->Create(folder.empty() ? name : folder + "/" + name));
    SLUICE_ASSIGN_OR_RETURN(made.encoder, format.Open(made.file.get()));
    at = pass->files.emplace(std::move(folder), std::move(made)).first;
  }
  ++at->second.records;
  return at->second.encoder->AddPrepared();
}

/// One for all partitions: whoever reads the files together would otherwise meet one field in two types. The chunk that
/// comes first decides, and the state store which one that was.
absl::Status FileSinkImpl::DecideSchema(Partition& p, Offset first, Offset next) {
  SLUICE_ASSIGN_OR_RETURN(const StateEntry decided, seams_.state->Get(SchemaKey()));
  if (decided.version >= 0) {
    SLUICE_ASSIGN_OR_RETURN(SinkState of_all, DecodeSinkState(decided.value));
    if (of_all.topic_id == p.state.topic_id) {
      p.state.schema = std::move(of_all.schema);
      return absl::OkStatus();
    }
  }
  SLUICE_ASSIGN_OR_RETURN(Schema schema, InferSchema(p, first, next));
  // Nothing but dead letters: the next chunk decides.
  if (schema.empty()) return absl::OkStatus();
  SinkState of_all;
  of_all.schema = schema;
  of_all.topic_id = p.state.topic_id;
  const absl::Status stored = seams_.state->Put(SchemaKey(), EncodeSinkState(of_all), decided.version).status();
  if (absl::IsAborted(stored)) {
    return absl::AbortedError(
        Cat(Where(p.id), ": another connector drives this sink; this one begins again from what is there"));
  }
  SLUICE_RETURN_IF_ERROR(stored);
  p.state.schema = std::move(schema);
  return absl::OkStatus();
}

absl::StatusOr<Schema> FileSinkImpl::InferSchema(Partition& p, Offset first, Offset next) {
  // Version 0.1.0 kept what it inferred with the partition alone.
  for (const Partition& other : partitions_) {
    if (other.state.schema.has_value()) return *other.state.schema;
  }
  SchemaInference inference;
  SLUICE_RETURN_IF_ERROR(ForEachRecord(p, first, next, [&](const record::Record& record) {
    if (record.value.has_value()) inference.Add(*record.value);
    return absl::OkStatus();
  }));
  return inference.Finish();
}

absl::Status FileSinkImpl::ForEachBatch(Partition& p, Offset first, Offset next, Batches visit) {
  if (p.held_all && !p.held.empty()) {
    for (const client::ConsumedBatch& batch : p.held) SLUICE_RETURN_IF_ERROR(visit(batch));
    return absl::OkStatus();
  }
  const client::TopicPartition source{options_.topic, p.id};
  auto reader = seams_.client->NewConsumer();
  reader->Assign(source, first);
  absl::Duration progressed = seams_.clock->Monotonic();
  while (reader->Position(source).value_or(next) < next) {
    SLUICE_ASSIGN_OR_RETURN(const auto batches, reader->PollBatches(absl::Seconds(1)));
    if (!batches.empty()) progressed = seams_.clock->Monotonic();
    for (const client::ConsumedBatch& batch : batches) {
      if (batch.batch.base_offset() >= next) return absl::OkStatus();
      SLUICE_RETURN_IF_ERROR(visit(batch));
    }
    if (seams_.clock->Monotonic() - progressed > kReadTimeout) {
      return absl::DeadlineExceededError(
          Cat(Where(p.id), ": could not read offsets ", first, " to ", next - 1, " again"));
    }
  }
  return absl::OkStatus();
}

absl::Status FileSinkImpl::ForEachRecord(Partition& p, Offset first, Offset next,
                                         absl::AnyInvocable<absl::Status(const record::Record&)> visit) {
  return ForEachBatch(p, first, next, [&](const client::ConsumedBatch& consumed) -> absl::Status {
    SLUICE_ASSIGN_OR_RETURN(record::RecordReader reader, record::RecordReader::Open(consumed.batch.view()));
    record::Record record;
    for (;;) {
      SLUICE_ASSIGN_OR_RETURN(const bool more, reader.Next(&record));
      if (!more) return absl::OkStatus();
      if (record.offset < first || record.offset >= next) continue;
      SLUICE_RETURN_IF_ERROR(visit(record));
    }
  });
}

SinkProgress FileSinkImpl::progress() const {
  SinkProgress progress = progress_;
  if (!ends_seen_) return progress;
  progress.lag_records = 0;
  for (const Partition& p : partitions_) {
    const Offset end = std::max(p.end_seen, consumer_->HighWatermark({options_.topic, p.id}).value_or(Offset(0)));
    if (end > p.state.committed_next) *progress.lag_records += end - p.state.committed_next;
  }
  return progress;
}

}  // namespace

absl::StatusOr<std::unique_ptr<FileSink>> MakeFileSink(FileSink::Options options, const FileSink::Seams& seams) {
  const SinkConfig& config = options.config;
  SLUICE_ASSIGN_OR_RETURN(PathTemplate path, PathTemplate::Parse(config.path));
  if (path.uses_event_time() && config.event_time.empty()) {
    return absl::InvalidArgumentError("event_time: `path` uses {event_time:…}, so this must point to it in the record");
  }
  if (config.kind == SinkKind::kRaw && config.codec == SinkCodec::kSnappy) {
    return absl::InvalidArgumentError("codec: a raw sink writes none, gzip or zstd");
  }
  if (config.kind == SinkKind::kParquet && config.codec == SinkCodec::kGzip) {
    return absl::InvalidArgumentError("codec: a parquet sink writes none, snappy or zstd");
  }
  if (!config.infer_schema) SLUICE_RETURN_IF_ERROR(CheckSchema(config.columns));
  SLUICE_RETURN_IF_ERROR(CheckTarget(config));
  return std::make_unique<FileSinkImpl>(std::move(options), seams, std::move(path));
}

}  // namespace sluice::connector
