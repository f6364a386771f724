#include "tests/simulation/cluster/node.h"

#include <utility>

#include "common/text.h"
#include "tests/simulation/cluster/node_executors.h"

namespace sluice::cluster_simulation {

using simulation::SimFileSystem;

namespace {

/// A full disk has at most this much room.
constexpr uint64_t kRoomMax = 768 << 10;

Logger MakeLogger(Context& context, NodeId id) {
  if (!context.trace.read()) return Logger::Silent();
  LogOptions options;
  options.level = LogLevel::kDebug;
  options.write = [&context, id](std::string_view line) {
    if (line.ends_with('\n')) line.remove_suffix(1);
    context.trace.Say([&] { return Cat("node ", id, " | ", line); });
  };
  options.now = [&context] { return absl::FromUnixSeconds(1'700'000'000) + context.scheduler.now(); };
  return Logger(std::move(options));
}

}  // namespace

Node::Node(Context& context, NodeSetup setup, Peers& peers)
    : context_(context),
      id_(setup.id),
      peers_(peers),
      fs_(std::make_unique<SimFileSystem>(context.random().Next())),
      clock_(context.scheduler),
      random_(context.random().Next()),
      log_(MakeLogger(context, setup.id)),
      founds_(setup.founds),
      seeds_(std::move(setup.seeds)),
      place_(FirstPlace(setup.id)),
      upgraded_(setup.upgraded) {
  peers_.where[id_] = place_.peer();
}

Node::~Node() {
  Kill();
}

std::string Node::rack() const {
  const std::vector<std::string>& racks = context_.plan.racks;
  return racks.empty() ? std::string() : racks[static_cast<size_t>(id_.value() - 1) % racks.size()];
}

// ---- Its life

void Node::Fatal(absl::Status why) {
  context_.hits.Add(Hit::kNodeStoppedItself);
  context_.trace.Say([&] { return Cat("node ", id_, " stops itself: ", why.ToString()); });
  fatal_ = std::move(why);
}

bool Node::Reap() {
  if (!up()) return false;
  const bool crashed = fs_->crashed();
  if (fatal_.ok() && !lose_power_ && !killed_ && !lose_disk_ && !crashed && !stopped_) return false;
  if (crashed) {
    context_.hits.Add(Hit::kCrashMidWrite);
    context_.trace.Say([&] { return Cat("node ", id_, " loses power in the middle of a file operation"); });
  }
  if (!serving_ && (crashed || lose_power_ || killed_)) context_.hits.Add(Hit::kCrashStarting);
  Kill();
  if (crashed || lose_power_) fs_->Crash();
  lose_power_ = killed_ = false;
  for (; damages_ > 0; --damages_) DamageDisk();
  CountHits();
  if (std::exchange(lose_disk_, false)) {
    fs_ = std::make_unique<SimFileSystem>(context_.random().Next());
    counted_ = {};
    founds_ = false;
    armed_ = damaged_ = false;
    lost_disk_ = true;
  }
  return true;
}

void Node::PowerOff() {
  if (!up()) {
    fs_->Crash();  // what a dead process had written and not synced
    return;
  }
  context_.hits.Add(Hit::kCrash);
  context_.trace.Say([&] { return Cat("node ", id_, " loses power"); });
  lose_power_ = true;
}

void Node::PowerOffAtOperation(uint64_t nth) {
  fs_->CrashAt(fs_->operations() + nth);
}

void Node::KillProcess() {
  if (!up()) return;
  context_.hits.Add(Hit::kKilled);
  context_.trace.Say([&] { return Cat("node ", id_, " is killed"); });
  killed_ = true;
}

void Node::LoseDisk(std::vector<std::string> seeds) {
  context_.hits.Add(Hit::kDiskLost);
  context_.trace.Say([&] { return Cat("node ", id_, " loses its disk"); });
  seeds_ = std::move(seeds);
  lose_disk_ = true;
}

void Node::Damage() {
  context_.trace.Say([&] { return Cat("node ", id_, " loses power, and its disk will be damaged"); });
  damaged_ = excused_ = lose_power_ = true;
  damages_ = 1 + static_cast<int>(random_.Below(4));
}

std::string Node::AnyFile(bool in_topics) {
  std::map<std::string, std::vector<std::string>> folders;  // of each folder in the data folder as often
  for (const std::string& path : fs_->Files()) {
    const std::string folder = path.substr(0, path.find('/', std::string("data/").size()));
    if (in_topics && folder != "data/topics") continue;
    if (fs_->Contents(path).find_first_not_of('\0') != std::string::npos) folders[folder].push_back(path);
  }
  if (folders.empty()) return {};
  const std::vector<std::string>& files =
      std::next(folders.begin(), static_cast<int64_t>(random_.Below(folders.size())))->second;
  return files[random_.Below(files.size())];
}

// The end of the newest journal file, or of the metadata store's log, cannot be told from one that was never written
// (docs/reliability.md): only what is recorded elsewhere is cut, or overwritten with what may be zeros.
void Node::DamageDisk() {
  const Damaged kind = OneOf(random_, {Damaged::kRead, Damaged::kCut, Damaged::kBlock, Damaged::kBit, Damaged::kBit});
  const std::string path = AnyFile(kind == Damaged::kCut || kind == Damaged::kBlock);
  if (kind == Damaged::kRead || path.empty()) {
    // Some of the reads of its start, or later ones: nothing else is wrong with its disk, so that it starts, and
    // serves.
    const uint64_t nth = random_.Below(30);
    fs_->FlipBitOfRead(1 + nth * nth);
    damages_ = 1;
    return context_.trace.Say([&] { return Cat("node ", id_, ": a read will be wrong"); });
  }
  const std::string before = fs_->Contents(path);
  std::string after = before;
  const size_t end = before.find_last_not_of('\0') + 1;
  const auto at = static_cast<size_t>(random_.Below(end));
  if (kind == Damaged::kCut) {
    after.resize(at);
  } else if (kind == Damaged::kBlock) {
    constexpr size_t kBlock = 512;
    const std::string block = before.substr(random_.Below(end) / kBlock * kBlock, kBlock);
    const size_t to = at / kBlock * kBlock;
    after.replace(to, std::min(block.size(), before.size() - to), block, 0, before.size() - to);
  } else {
    after[at] = static_cast<char>(after[at] ^ (1 << random_.Below(8)));
  }
  if (after == before) return;
  context_.hits.Add(kind == Damaged::kCut     ? Hit::kFileCutShort
                    : kind == Damaged::kBlock ? Hit::kBlockMisdirected
                                              : Hit::kBitFlipped);
  context_.trace.Say([&] {
    return Cat("node ", id_, ": ", path, " is ",
               kind == Damaged::kCut     ? "cut at "
               : kind == Damaged::kBlock ? "overwritten about "
                                         : "damaged at ",
               at);
  });
  fs_->SetContents(path, std::move(after));
}

void Node::Upgrade() {
  if (lost_disk_ || std::exchange(upgraded_, true)) return;
  context_.hits.Add(Hit::kUpgraded);
  context_.trace.Say([&] { return Cat("node ", id_, " is to be the next version"); });
}

void Node::StopInOrder() {
  if (!serving() || stopping_) return;
  stopping_ = true;
  context_.hits.Add(Hit::kControlledStop);
  context_.trace.Say([&] { return Cat("node ", id_, " is told to stop"); });
  broker_->PrepareStop([this](broker::Done) { StopParts(); });
}

void Node::StopParts() {
  broker_->Stop([this](broker::Done) {
    port_->Stop([this] {
      raft_->Stop([this] {
        store_->Stop([this](const absl::Status&) {
          context_.trace.Say([&] { return Cat("node ", id_, " has stopped"); });
          stopped_ = true;
        });
      });
    });
  });
}

void Node::Pause() {
  if (!up() || process_->paused()) return;
  context_.hits.Add(Hit::kPause);
  context_.trace.Say([&] { return Cat("node ", id_, " is paused"); });
  process_->Pause();
}

void Node::Resume() {
  if (!paused()) return;
  context_.trace.Say([&] { return Cat("node ", id_, " goes on"); });
  process_->Resume();
}

// The process is gone; what it wrote to files is there.
void Node::Kill() {
  serving_ = stopping_ = stopped_ = false;
  fatal_ = absl::OkStatus();
  if (raft_ != nullptr) CountHits();
  snapshots_counted_ = states_counted_ = 0;
  controller_log_start_counted_ = Offset(0);
  sessions_.clear();
  port_.reset();
  if (store_ != nullptr) store_->Abandon();
  if (raft_ != nullptr) raft_->Abandon();
  if (executors_ != nullptr) executors_->Drop();
  joiner_.reset();
  broker_.reset();
  factory_.reset();
  raft_.reset();
  store_.reset();
  meta_.reset();
  executors_.reset();
  process_.reset();
}

std::string Node::Describe() const {
  return Cat("node ", id_, up() ? (serving_ ? " serves" : " is starting") : " is down", paused() ? ", paused" : "",
             stopping_ ? ", stopping" : "");
}

// ---- What reaches it

void Node::Deliver(Task task) {
  executors_->wire.Post(std::move(task));
}

std::shared_ptr<broker::ProduceSession> Node::Session(uint64_t name) {
  auto& session = sessions_[name];
  if (session == nullptr) session = broker_->NewSession();
  return session;
}

Offset Node::ReplicaStart(const ReplicaId& replica) const {
  const auto log = up() && raft_ != nullptr ? raft_->Find(replica) : nullptr;
  return log == nullptr ? Offset(0) : log->storage_log().log_start();
}

void Node::ReadReplica(const ReplicaId& replica, Offset from,
                       absl::AnyInvocable<void(absl::StatusOr<replication::ReadResult>)> done) {
  auto log = up() && raft_ != nullptr ? raft_->Find(replica) : nullptr;
  if (log == nullptr) return done(absl::UnavailableError("there is no such replica"));
  Executor& shard = log->storage_log().home();
  shard.Post([log = std::move(log), from, done = std::move(done)]() mutable {
    log->ReadCommitted({.offset = from}, std::move(done));
  });
}

std::optional<ControllerTerm> Node::LeadsController() const {
  const auto group0 = up() && raft_ != nullptr ? raft_->Find(broker::kControllerReplica) : nullptr;
  if (group0 == nullptr || !group0->IsLeader()) return std::nullopt;
  return ControllerTerm{.leader = id_, .term = group0->leader_epoch(), .members = group0->raft().configuration()};
}

// ---- Faults of its disk and clock

void Node::FailCall(SimFileSystem::Call call) {
  excused_ = armed_ = calls_failed_ = true;
  fs_->FailCall(call, 1 + context_.random().Below(call == SimFileSystem::Call::kRead ? 8 : 30));
}

void Node::FailSyncsOf(const std::string& ending) {
  excused_ = armed_ = true;
  fs_->FailSyncsOf(ending, 1 + context_.random().Below(2), context_.random().OneIn(2));
}

void Node::FillDisk() {
  excused_ = armed_ = true;
  context_.hits.Add(Hit::kDiskFull);
  const auto room = static_cast<int64_t>(context_.random().Below(kRoomMax));
  context_.trace.Say([&] { return Cat("the disk of node ", id_, " has only ", room, " bytes more"); });
  fs_->SetCapacity(fs_->UsedBytes() + room);
}

void Node::SlowDisk() {
  context_.hits.Add(Hit::kDiskSlow);
  context_.trace.Say([&] { return Cat("the disk of node ", id_, " is slow"); });
  slow_ = true;
  ApplyLatency();
}

void Node::ApplyLatency() {
  if (executors_ == nullptr) return;
  const absl::Duration most = slow_ ? absl::Milliseconds(40) : absl::Microseconds(400);
  executors_->journal_io.SetLatency(absl::Microseconds(5), most);
  executors_->segment_io.SetLatency(absl::Microseconds(5), most);
  executors_->cold_reads.SetLatency(absl::Microseconds(5), most);
}

void Node::JumpClock() {
  const auto seconds = static_cast<int64_t>(context_.random().Below(uint64_t{2} * 7200)) - 7200;
  context_.hits.Add(Hit::kClockJumped);
  context_.trace.Say([&] { return Cat("the wall clock of node ", id_, " jumps by ", seconds, " s"); });
  clock_.JumpWall(absl::Seconds(seconds));
}

void Node::Mend() {
  fs_->ClearFailures();
  if (!fs_->crashed()) fs_->CrashAt(0);
  armed_ = slow_ = false;
  ApplyLatency();
}

void Node::CountHits() {
  const simulation::SimFaultCounts now = fs_->counts();
  context_.hits.Add(Hit::kWritesLost, now.writes_lost - counted_.writes_lost);
  context_.hits.Add(Hit::kWriteTorn, now.writes_torn - counted_.writes_torn);
  context_.hits.Add(Hit::kReadFailed, now.read_errors - counted_.read_errors);
  context_.hits.Add(Hit::kWriteFailed, now.write_errors - counted_.write_errors);
  context_.hits.Add(Hit::kSyncFailed, now.sync_errors - counted_.sync_errors);
  context_.hits.Add(Hit::kReadFlipped, now.bits_flipped - counted_.bits_flipped);
  counted_ = now;
  if (raft_ == nullptr) return;
  const uint64_t installed = raft_->stats().snapshots_installed;
  context_.hits.Add(Hit::kSnapshotInstalled, installed - snapshots_counted_);
  snapshots_counted_ = installed;
  const auto group0 = raft_->Find(broker::kControllerReplica);
  if (group0 == nullptr) return;
  const uint64_t states = group0->stats().snapshots_installed;
  context_.hits.Add(Hit::kControllerStateInstalled, states - std::exchange(states_counted_, states));
  const Offset log_start = group0->bounds().log_start;
  if (std::exchange(controller_log_start_counted_, log_start) < log_start) context_.hits.Add(Hit::kControllerLogCut);
}

}  // namespace sluice::cluster_simulation
