#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>

#include "runtime/blocking_threads.h"
#include "runtime/posix_file_system.h"

namespace sluice::runtime {

namespace {

class TempDir {
 public:
  TempDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "sluice-files-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TempDir() { std::filesystem::remove_all(path_); }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

constexpr auto kCreate = OpenOptions::Mode::kCreateNew;

}  // namespace

TEST_CASE("what is written at an offset is read back there, and a read stops at the end of the file") {
  TempDir dir;
  PosixFileSystem fs;
  auto file = fs.Open(dir / "a", {.mode = kCreate});
  REQUIRE(file.ok());
  REQUIRE((*file)->WriteAt(3, "hello").ok());
  REQUIRE((*file)->Sync().ok());
  char out[16];
  auto count = (*file)->ReadAt(4, absl::MakeSpan(out, sizeof out));
  REQUIRE(count.ok());
  REQUIRE(std::string(out, *count) == "ello");
  REQUIRE(*(*file)->Size() == 8);
  REQUIRE((*file)->Allocate(100000).ok());
  REQUIRE(*(*file)->Size() == 8);
  REQUIRE((*file)->Truncate(2).ok());
  REQUIRE(*(*file)->Size() == 2);
}

TEST_CASE("a direct file takes aligned writes and reads them back") {
  TempDir dir;
  PosixFileSystem fs;
  auto file = fs.Open(dir / "a", {.mode = kCreate, .direct = true});
  REQUIRE(file.ok());
  char* block = static_cast<char*>(std::aligned_alloc(kBlockBytes, 2 * kBlockBytes));
  std::memset(block, 'x', 2 * kBlockBytes);
  REQUIRE((*file)->WriteAt(kBlockBytes, std::string_view(block, kBlockBytes)).ok());
  REQUIRE((*file)->Sync().ok());
  auto count = (*file)->ReadAt(0, absl::MakeSpan(block, 2 * kBlockBytes));
  REQUIRE(count.ok());
  REQUIRE(*count == 2 * kBlockBytes);
  REQUIRE(block[0] == 0);
  REQUIRE(block[kBlockBytes] == 'x');
  std::free(block);
}

TEST_CASE("errors carry path, call and errno") {
  TempDir dir;
  PosixFileSystem fs;
  auto missing = fs.Open(dir / "none", {});
  REQUIRE(missing.status().code() == absl::StatusCode::kNotFound);
  const std::string message(missing.status().message());
  REQUIRE(message.find(dir / "none") != std::string::npos);
  REQUIRE(message.find("open") != std::string::npos);
  REQUIRE(message.find("errno 2") != std::string::npos);
  REQUIRE(fs.Open(dir / "a", {.mode = kCreate}).ok());
  REQUIRE(fs.Open(dir / "a", {.mode = kCreate}).status().code() == absl::StatusCode::kAlreadyExists);
  REQUIRE_FALSE(fs.CreateDirs(dir / "a").ok());
}

TEST_CASE("folders are made with their parents, listed in order and removed") {
  TempDir dir;
  PosixFileSystem fs;
  REQUIRE(fs.CreateDirs(dir / "x/y/z").ok());
  REQUIRE(fs.CreateDirs(dir / "x/y/z").ok());
  REQUIRE(*fs.IsDir(dir / "x/y"));
  REQUIRE(fs.Open(dir / "x/b", {.mode = kCreate}).ok());
  REQUIRE(fs.Rename(dir / "x/b", dir / "x/a").ok());
  REQUIRE(*fs.List(dir / "x") == std::vector<std::string>{"a", "y"});
  REQUIRE_FALSE(fs.RemoveDir(dir / "x/y").ok());
  REQUIRE(fs.RemoveDir(dir / "x/y/z").ok());
  REQUIRE(fs.Remove(dir / "x/a").ok());
  REQUIRE_FALSE(*fs.Exists(dir / "x/a"));
  REQUIRE(fs.SyncDir(dir / "x").ok());
  REQUIRE(*fs.FreeBytes(dir.path()) > 0);
}

TEST_CASE("a folder is locked by one process at a time, and the refusal names the holder") {
  TempDir dir;
  PosixFileSystem fs;
  auto lock = fs.LockFile(dir / "LOCK");
  REQUIRE(lock.ok());
  auto second = fs.LockFile(dir / "LOCK");
  REQUIRE(second.status().code() == absl::StatusCode::kFailedPrecondition);
  REQUIRE(std::string(second.status().message()).find(std::to_string(::getpid())) != std::string::npos);
  lock->reset();
  REQUIRE(fs.LockFile(dir / "LOCK").ok());
}

TEST_CASE("one blocking thread keeps the order posted and finishes everything before it stops") {
  std::vector<int> ran;
  {
    BlockingThreads threads(1);
    for (int i = 0; i < 1000; ++i) threads.Post([&ran, i] { ran.push_back(i); });
  }
  REQUIRE(ran.size() == 1000);
  REQUIRE(std::is_sorted(ran.begin(), ran.end()));
}

TEST_CASE("several blocking threads run side by side") {
  BlockingThreads threads(2);
  std::atomic<int> here{0};
  std::atomic<bool> met{false};
  for (int i = 0; i < 2; ++i) {
    threads.Post([&] {
      here.fetch_add(1);
      const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
      while (here.load() < 2 && std::chrono::steady_clock::now() < until) std::this_thread::yield();
      if (here.load() == 2) met = true;
    });
  }
  threads.Stop();
  REQUIRE(met);
}

}  // namespace sluice::runtime
