#include "runtime/system.h"

#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <limits>
#include <utility>

#include "absl/time/clock.h"
#include "common/check.h"

namespace sluice::runtime {

absl::Duration SystemClock::Monotonic() const {
  return absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

absl::Time SystemClock::Wall() const {
  return absl::Now();
}

uint64_t SystemRandom::Next() {
  if (next_ == block_.size()) {
    char* to = reinterpret_cast<char*>(block_.data());
    for (size_t filled = 0; filled < sizeof(block_);) {
      const ssize_t got = getrandom(to + filled, sizeof(block_) - filled, 0);
      SLUICE_CHECK(got > 0 || errno == EINTR) << "getrandom failed, errno " << errno;
      if (got > 0) filled += static_cast<size_t>(got);
    }
    next_ = 0;
  }
  return block_[next_++];
}

namespace {

constexpr int kMiB = 1 << 20;

// Room for the heap to grow, without memory behind it yet, and its further part marked. That cannot be done later: the
// allocator does not tell when it grows, nor where it ends. Where the system refuses any of it, pages stay small.
void AskForHugePages() {
  constexpr intptr_t kRoom = intptr_t{256} * kMiB;
  constexpr intptr_t kSmallPages = intptr_t{6} * kMiB;
  constexpr intptr_t kHugePage = intptr_t{2} * kMiB;
  char* const heap_end = static_cast<char*>(sbrk(0));
  const auto begin = reinterpret_cast<intptr_t>(heap_end);
  mallopt(M_TOP_PAD, static_cast<int>(kRoom));
  void* volatile block = std::malloc(kMiB);  // grows the heap; is not needed itself
  std::free(block);
  const auto end = reinterpret_cast<intptr_t>(sbrk(0));
  const intptr_t from = (begin + kSmallPages + kHugePage - 1) / kHugePage * kHugePage;
  if (end > from) (void)madvise(heap_end + (from - begin), static_cast<size_t>(end - from), MADV_HUGEPAGE);
}

}  // namespace

void TuneMalloc() {
  mallopt(M_ARENA_MAX, 1);
  mallopt(M_TRIM_THRESHOLD, 1024 * kMiB);
  mallopt(M_MMAP_THRESHOLD, 32 * kMiB);
  AskForHugePages();
  mallopt(M_TOP_PAD, 32 * kMiB);
}

int64_t RaiseFileLimit() {
  rlimit limit{};
  SLUICE_CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  const rlim_t before = std::exchange(limit.rlim_cur, limit.rlim_max);
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) limit.rlim_cur = before;
  constexpr rlim_t kMost = std::numeric_limits<int64_t>::max();
  return static_cast<int64_t>(std::min(limit.rlim_cur, kMost));
}

namespace {

sigset_t TerminationSet() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

}  // namespace

TerminationSignals::TerminationSignals() {
  const sigset_t set = TerminationSet();
  SLUICE_CHECK(pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0);
  SLUICE_CHECK(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
}

int TerminationSignals::Wait() {
  const sigset_t set = TerminationSet();
  int signal_number = 0;
  while (sigwait(&set, &signal_number) != 0) {
  }
  return signal_number;
}

std::optional<int> TerminationSignals::WaitFor(absl::Duration most) {
  const sigset_t set = TerminationSet();
  const timespec wait = absl::ToTimespec(most);
  const int signal_number = sigtimedwait(&set, nullptr, &wait);
  return signal_number > 0 ? std::optional<int>(signal_number) : std::nullopt;
}

void TerminationSignals::Raise() {
  kill(getpid(), SIGTERM);
}

}  // namespace sluice::runtime
