#include "tests/simulation/sim_file_system.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/simulation/sim_file.h"

namespace sluice::simulation {

namespace {

std::string ParentOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

absl::Status Missing(const std::string& path) {
  return absl::NotFoundError(absl::StrCat(path, ": open: no such file (errno 2)"));
}

class SimLock final : public FileLock {
 public:
  explicit SimLock(std::shared_ptr<int> token) : token_(std::move(token)) {}

 private:
  std::shared_ptr<int> token_;
};

}  // namespace

void SimFileSystem::ApplyChange(std::string& contents, const Change& change) {
  if (change.is_truncate) {
    contents.resize(static_cast<size_t>(change.offset), '\0');
    return;
  }
  if (change.data.empty()) return;
  const size_t end = static_cast<size_t>(change.offset) + change.data.size();
  if (contents.size() < end) contents.resize(end, '\0');
  std::copy(change.data.begin(), change.data.end(), contents.begin() + change.offset);
}

void SimFileSystem::ApplyNameChange(Names& names, const NameChange& change) {
  if (!change.remove.empty()) names.erase(change.remove);
  if (!change.add.empty()) names[change.add] = change.node;
}

// What of the unsynced changes becomes durable when the disk is left to itself.
void SimFileSystem::SettleFile(Node& node) {
  std::vector<Change> survivors;
  for (Change& change : node.changes) {
    const uint64_t fate = random_.Below(3);
    if (fate == 0) {
      ++counts_.writes_lost;
    } else if (fate == 1 || change.is_truncate || change.data.size() <= 512) {
      ++counts_.writes_kept;
      survivors.push_back(std::move(change));
    } else {
      ++counts_.writes_torn;
      const size_t unit = random_.OneIn(2) ? 512 : 4096;
      for (size_t at = 0; at < change.data.size();) {
        const size_t place = static_cast<size_t>(change.offset) + at;
        const size_t length = std::min(unit - place % unit, change.data.size() - at);
        if (random_.OneIn(2)) survivors.push_back({static_cast<int64_t>(place), change.data.substr(at, length)});
        at += length;
      }
    }
  }
  node.changes.clear();
  if (survivors.size() > 1 && random_.OneIn(2)) {
    ++counts_.writes_reordered;
    for (size_t i = survivors.size() - 1; i > 0; --i) std::swap(survivors[i], survivors[random_.Below(i + 1)]);
  }
  for (const Change& change : survivors) ApplyChange(node.durable, change);
}

bool SimFileSystem::Operate(bool* happens) {
  *happens = true;
  if (++operations_ != crash_at_) return true;
  crashed_ = true;
  *happens = random_.OneIn(2);
  return false;
}

absl::Status SimFileSystem::CheckAlive() const {
  return crashed_ ? PowerIsOff() : absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<File>> SimFileSystem::Open(const std::string& path, OpenOptions options) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (auto status = CheckAlive(); !status.ok()) return status;
  auto at = names_.find(path);
  if (options.mode != OpenOptions::Mode::kCreateNew) {
    if (at == names_.end() || at->second->is_dir) return Missing(path);
    return std::make_unique<SimFile>(*this, path, at->second, options);
  }
  if (at != names_.end()) return absl::AlreadyExistsError(absl::StrCat(path, ": open: exists (errno 17)"));
  if (names_.count(ParentOf(path)) == 0) return Missing(path);
  if (failing_creates_ > 0 && absl::EndsWith(path, failing_creates_of_)) {
    --failing_creates_;
    ++counts_.full;
    return absl::ResourceExhaustedError(absl::StrCat(path, ": open: ", NoSpace(capacity_hidden_)));
  }
  bool happens = true;
  const bool alive = Operate(&happens);
  auto node = std::make_shared<Node>();
  if (happens) ChangeNames(ParentOf(path), {.remove = {}, .add = path, .node = node});
  if (!alive) return PowerIsOff();
  return std::make_unique<SimFile>(*this, path, std::move(node), options);
}

void SimFileSystem::ChangeNames(const std::string& dir, NameChange change) {
  ApplyNameChange(names_, change);
  name_changes_[dir].push_back(std::move(change));
}

absl::Status SimFileSystem::CreateDirs(const std::string& path) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (auto status = CheckAlive(); !status.ok()) return status;
  for (size_t slash = path.find('/', 1);; slash = path.find('/', slash + 1)) {
    const std::string part = path.substr(0, slash);
    auto at = names_.find(part);
    if (at != names_.end() && !at->second->is_dir) {
      return absl::AlreadyExistsError(absl::StrCat(part, ": mkdir: a file is there (errno 17)"));
    }
    if (at == names_.end()) {
      auto node = std::make_shared<Node>();
      node->is_dir = true;
      ChangeNames(ParentOf(part), {.remove = {}, .add = part, .node = std::move(node)});
    }
    if (slash == std::string::npos) return absl::OkStatus();
  }
}

absl::Status SimFileSystem::SyncDir(const std::string& path) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (auto status = CheckAlive(); !status.ok()) return status;
  const uint64_t call = ++calls_[Call::kSync];
  if (failures_[Call::kSync].erase(call) > 0) {
    ++counts_.sync_errors;
    return IoError(path, "fsync");
  }
  bool happens = true;
  const bool alive = Operate(&happens);
  if (happens) {
    for (const NameChange& change : name_changes_[path]) ApplyNameChange(durable_names_, change);
    name_changes_.erase(path);
  }
  return alive ? absl::OkStatus() : PowerIsOff();
}

absl::Status SimFileSystem::Rename(const std::string& from, const std::string& to) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (auto status = CheckAlive(); !status.ok()) return status;
  auto at = names_.find(from);
  if (at == names_.end() || at->second->is_dir || names_.count(ParentOf(to)) == 0) return Missing(from);
  bool happens = true;
  const bool alive = Operate(&happens);
  if (happens) ChangeNames(ParentOf(to), {.remove = from, .add = to, .node = at->second});
  return alive ? absl::OkStatus() : PowerIsOff();
}

absl::Status SimFileSystem::Remove(const std::string& path) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (auto status = CheckAlive(); !status.ok()) return status;
  auto at = names_.find(path);
  if (at == names_.end() || at->second->is_dir) return Missing(path);
  bool happens = true;
  const bool alive = Operate(&happens);
  if (happens) ChangeNames(ParentOf(path), {.remove = path, .add = {}, .node = nullptr});
  return alive ? absl::OkStatus() : PowerIsOff();
}

absl::Status SimFileSystem::RemoveDir(const std::string& path) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (auto status = CheckAlive(); !status.ok()) return status;
  auto at = names_.find(path);
  if (at == names_.end() || !at->second->is_dir) return Missing(path);
  auto next = names_.lower_bound(path + "/");
  if (next != names_.end() && next->first.compare(0, path.size() + 1, path + "/") == 0) {
    return absl::InternalError(absl::StrCat(path, ": rmdir: not empty (errno 39)"));
  }
  bool happens = true;
  const bool alive = Operate(&happens);
  if (happens) ChangeNames(ParentOf(path), {.remove = path, .add = {}, .node = nullptr});
  return alive ? absl::OkStatus() : PowerIsOff();
}

absl::StatusOr<std::vector<std::string>> SimFileSystem::List(const std::string& path) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (auto status = CheckAlive(); !status.ok()) return status;
  auto dir = names_.find(path);
  if (dir == names_.end() || !dir->second->is_dir) return Missing(path);
  std::vector<std::string> found;
  const std::string prefix = path + "/";
  for (auto at = names_.lower_bound(prefix); at != names_.end(); ++at) {
    if (at->first.compare(0, prefix.size(), prefix) != 0) break;
    const std::string name = at->first.substr(prefix.size());
    if (name.find('/') == std::string::npos) found.push_back(name);
  }
  return found;
}

absl::StatusOr<bool> SimFileSystem::Exists(const std::string& path) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (auto status = CheckAlive(); !status.ok()) return status;
  return names_.count(path) > 0;
}

absl::StatusOr<bool> SimFileSystem::IsDir(const std::string& path) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (auto status = CheckAlive(); !status.ok()) return status;
  auto at = names_.find(path);
  return at != names_.end() && at->second->is_dir;
}

absl::StatusOr<std::unique_ptr<FileLock>> SimFileSystem::LockFile(const std::string& path) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (auto status = CheckAlive(); !status.ok()) return status;
  std::weak_ptr<int>& held = locks_[path];
  if (!held.expired()) return absl::FailedPreconditionError(absl::StrCat(path, ": in use by another node"));
  auto token = std::make_shared<int>(0);
  held = token;
  return std::make_unique<SimLock>(std::move(token));
}

absl::StatusOr<int64_t> SimFileSystem::FreeBytes(const std::string&) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (auto status = CheckAlive(); !status.ok()) return status;
  return capacity_ < 0 || capacity_hidden_ ? int64_t{1} << 50 : std::max<int64_t>(0, capacity_ - UsedBytesLocked());
}

void SimFileSystem::FailCall(Call call, uint64_t nth) {
  const std::lock_guard<std::mutex> lock(mutex_);
  failures_[call].insert(calls_[call] + nth);
}

void SimFileSystem::FailNoCall(Call call) {
  std::lock_guard lock(mutex_);
  failures_[call].clear();
}

void SimFileSystem::FailSyncsOf(const std::string& ending, uint64_t count, bool drops) {
  const std::lock_guard<std::mutex> lock(mutex_);
  failing_syncs_of_ = ending;
  failing_syncs_ = count;
  failing_syncs_drop_ = drops;
}

uint64_t SimFileSystem::SyncsOf(const std::string& ending) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  uint64_t count = 0;
  for (const auto& [path, syncs] : syncs_) {
    if (absl::EndsWith(path, ending)) count += syncs;
  }
  return count;
}

void SimFileSystem::FailCreatesOf(const std::string& ending, uint64_t count) {
  const std::lock_guard<std::mutex> lock(mutex_);
  failing_creates_of_ = ending;
  failing_creates_ = count;
}

void SimFileSystem::FlipBitOfRead(uint64_t nth) {
  const std::lock_guard<std::mutex> lock(mutex_);
  flips_.insert(calls_[Call::kRead] + nth);
}

void SimFileSystem::SetCapacity(int64_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  capacity_ = bytes;
}

void SimFileSystem::HideCapacity(bool hidden) {
  const std::lock_guard<std::mutex> lock(mutex_);
  capacity_hidden_ = hidden;
}

void SimFileSystem::SetAllocates(bool allocates) {
  const std::lock_guard<std::mutex> lock(mutex_);
  allocates_ = allocates;
}

void SimFileSystem::ClearFailures() {
  const std::lock_guard<std::mutex> lock(mutex_);
  failures_.clear();
  flips_.clear();
  failing_syncs_ = 0;
  failing_creates_ = 0;
  capacity_ = -1;
}

void SimFileSystem::CrashAt(uint64_t n) {
  const std::lock_guard<std::mutex> lock(mutex_);
  crash_at_ = n;
}

bool SimFileSystem::crashed() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return crashed_;
}

uint64_t SimFileSystem::operations() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return operations_;
}

SimFaultCounts SimFileSystem::counts() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return counts_;
}

void SimFileSystem::Kill() {
  const std::lock_guard<std::mutex> lock(mutex_);
  EndProcess();
}

void SimFileSystem::EndProcess() {
  ++life_;
  crashed_ = false;
  crash_at_ = 0;
  locks_.clear();
}

void SimFileSystem::Crash() {
  const std::lock_guard<std::mutex> lock(mutex_);
  ++counts_.crashes;
  EndProcess();
  for (auto& [dir, changes] : name_changes_) {
    const size_t kept = random_.Below(changes.size() + 1);
    for (size_t i = 0; i < kept; ++i) ApplyNameChange(durable_names_, changes[i]);
    counts_.names_lost += changes.size() - kept;
  }
  name_changes_.clear();
  // In order of names, so that a folder that is gone takes along what is below it.
  for (auto at = durable_names_.begin(); at != durable_names_.end();) {
    const std::string parent = ParentOf(at->first);
    const bool is_root = parent == "." || parent.empty();
    at = is_root || durable_names_.count(parent) > 0 ? std::next(at) : durable_names_.erase(at);
  }
  // Two names may have come to share a node where a rename survived by half; settling twice changes nothing.
  for (auto& [path, node] : durable_names_) {
    SettleFile(*node);
    node->seen = node->durable;
  }
  names_ = durable_names_;
}

std::vector<std::string> SimFileSystem::Files() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<std::string> paths;
  for (const auto& [path, node] : names_) {
    if (!node->is_dir) paths.push_back(path);
  }
  return paths;
}

std::string SimFileSystem::Contents(const std::string& path) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  auto at = names_.find(path);
  return at == names_.end() ? std::string() : at->second->seen;
}

void SimFileSystem::SetContents(const std::string& path, std::string contents) {
  const std::lock_guard<std::mutex> lock(mutex_);
  auto node = std::make_shared<Node>();
  node->seen = contents;
  node->durable = std::move(contents);
  names_[path] = node;
  durable_names_[path] = std::move(node);
}

int64_t SimFileSystem::UsedBytes() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return UsedBytesLocked();
}

int64_t SimFileSystem::UsedBytesLocked() const {
  int64_t used = 0;
  for (const auto& [path, node] : names_) used += UsedBytesOf(*node);
  return used;
}

int64_t SimFileSystem::UsedBytesOf(const Node& node) {
  return std::max(node.allocated, static_cast<int64_t>(node.seen.size()));
}

}  // namespace sluice::simulation
