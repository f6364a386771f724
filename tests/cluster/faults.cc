// Loaded into a node by LD_PRELOAD for tests: makes its disk fail or slow, and its wall clock jump, when the test says
// so.
//
// The test and the node share one small file of 64-bit numbers, `Control`, that SLUICE_FAULTS names: what shall happen,
// and how often it did. Only files below SLUICE_FAULTS_UNDER are touched, so that the node's log and its sockets work
// as ever.

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>

namespace {

/// The order is that of `faults.py`.
struct Control {
  // What shall happen.
  std::atomic<int64_t> clock_shift_ns;  ///< Added to the wall clock.
  std::atomic<int64_t> syncs_to_fail;   ///< Fail with EIO, one less each time; negative: all.
  std::atomic<int64_t> writes_to_fail;  ///< As above.
  std::atomic<int64_t> sync_delay_us;   ///< Before each sync.
  std::atomic<int64_t> free_bytes;      ///< What the file system is said to have free at most; 0: as it is.
  // What happened.
  std::atomic<int64_t> clock_reads_shifted;
  std::atomic<int64_t> syncs_failed;
  std::atomic<int64_t> writes_failed;
  std::atomic<int64_t> syncs_delayed;
  std::atomic<int64_t> writes_without_space;  ///< Not made here: the file system was full.
};

Control* control = nullptr;
const char* under = "";

__attribute__((constructor)) void MapControl() {
  const char* path = getenv("SLUICE_FAULTS");
  if (path == nullptr) return;
  if (const char* folder = getenv("SLUICE_FAULTS_UNDER"); folder != nullptr) under = folder;
  const int fd = open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) abort();
  void* mapped = mmap(nullptr, sizeof(Control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (mapped == MAP_FAILED) abort();
  close(fd);
  control = static_cast<Control*>(mapped);
}

/// The function that this library stands before. Not a static variable with an initial value: where two threads came to
/// that at once, one would wait for the other in syscall(), which is one of these functions.
template <typename Function>
Function* Next(std::atomic<Function*>& found, const char* name) {
  if (found.load(std::memory_order_acquire) == nullptr) {
    found.store(reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name)), std::memory_order_release);
  }
  return found.load(std::memory_order_acquire);
}

bool IsData(int fd) {
  char link[64];
  char path[4096];
  snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
  const ssize_t size = readlink(link, path, sizeof(path) - 1);
  return size > 0 && strncmp(path, under, strlen(under)) == 0;
}

/// Whether this call is one that shall fail.
bool Fails(int fd, std::atomic<int64_t>& left, std::atomic<int64_t>& failed) {
  if (left.load(std::memory_order_relaxed) == 0 || !IsData(fd)) return false;
  for (int64_t now = left.load(); now >= 0;) {
    if (now == 0) return false;
    if (left.compare_exchange_weak(now, now - 1)) break;
  }
  ++failed;
  errno = EIO;
  return true;
}

bool SyncFails(int fd) {
  if (control == nullptr) return false;
  if (const int64_t delay = control->sync_delay_us; delay > 0 && IsData(fd)) {
    ++control->syncs_delayed;
    usleep(static_cast<useconds_t>(delay));
  }
  return Fails(fd, control->syncs_to_fail, control->syncs_failed);
}

bool WriteFails(int fd) {
  return control != nullptr && Fails(fd, control->writes_to_fail, control->writes_failed);
}

template <typename Result>
Result Written(Result result) {
  if (result < 0 && errno == ENOSPC && control != nullptr) ++control->writes_without_space;
  return result;
}

int64_t Shift() {
  const int64_t shift = control == nullptr ? 0 : control->clock_shift_ns.load(std::memory_order_relaxed);
  if (shift != 0) control->clock_reads_shifted.fetch_add(1, std::memory_order_relaxed);
  return shift;
}

constexpr int64_t kSecond = 1'000'000'000;

timespec Moved(const timespec& time, int64_t by) {
  const int64_t all = time.tv_sec * kSecond + time.tv_nsec + by;
  return {all / kSecond, all % kSecond};
}

/// A wall-clock time that a node made of its own clock, as the kernel's. Times since the machine's start stay what they
/// are: no machine has been up for a billion seconds.
const timespec* Unshifted(const timespec* time, timespec& moved) {
  if (time == nullptr || time->tv_sec < kSecond || control == nullptr) return time;
  const int64_t shift = control->clock_shift_ns.load(std::memory_order_relaxed);
  if (shift == 0) return time;
  moved = Moved(*time, -shift);
  return &moved;
}

}  // namespace

extern "C" {

int fdatasync(int fd) {
  static std::atomic<int (*)(int)> found{nullptr};
  auto* const next = Next(found, "fdatasync");
  return SyncFails(fd) ? -1 : Written(next(fd));
}

int fsync(int fd) {
  static std::atomic<int (*)(int)> found{nullptr};
  auto* const next = Next(found, "fsync");
  return SyncFails(fd) ? -1 : Written(next(fd));
}

ssize_t pwrite(int fd, const void* data, size_t size, off_t offset) {
  static std::atomic<ssize_t (*)(int, const void*, size_t, off_t)> found{nullptr};
  auto* const next = Next(found, "pwrite");
  return WriteFails(fd) ? -1 : Written(next(fd, data, size, offset));
}

ssize_t pwritev(int fd, const iovec* vector, int count, off_t offset) {
  static std::atomic<ssize_t (*)(int, const iovec*, int, off_t)> found{nullptr};
  auto* const next = Next(found, "pwritev");
  return WriteFails(fd) ? -1 : Written(next(fd, vector, count, offset));
}

ssize_t write(int fd, const void* data, size_t size) {
  static std::atomic<ssize_t (*)(int, const void*, size_t)> found{nullptr};
  auto* const next = Next(found, "write");
  return WriteFails(fd) ? -1 : Written(next(fd, data, size));
}

int fallocate(int fd, int mode, off_t offset, off_t size) {
  static std::atomic<int (*)(int, int, off_t, off_t)> found{nullptr};
  auto* const next = Next(found, "fallocate");
  return WriteFails(fd) ? -1 : Written(next(fd, mode, offset, size));
}

int statvfs(const char* path, struct statvfs* info) {
  static std::atomic<int (*)(const char*, struct statvfs*)> found{nullptr};
  auto* const next = Next(found, "statvfs");
  const int result = next(path, info);
  if (result != 0 || control == nullptr || strncmp(path, under, strlen(under)) != 0) return result;
  if (const int64_t free_bytes = control->free_bytes; free_bytes > 0) {
    const auto blocks = static_cast<fsblkcnt_t>(free_bytes) / info->f_frsize;
    info->f_bavail = std::min(info->f_bavail, blocks);
    info->f_bfree = std::min(info->f_bfree, blocks);
  }
  return result;
}

int clock_gettime(clockid_t clock, timespec* time) {
  static std::atomic<int (*)(clockid_t, timespec*)> found{nullptr};
  auto* const next = Next(found, "clock_gettime");
  const int result = next(clock, time);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    if (const int64_t shift = Shift(); shift != 0) *time = Moved(*time, shift);
  }
  return result;
}

int gettimeofday(timeval* time, void*) {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  *time = {now.tv_sec, now.tv_nsec / 1000};
  return 0;
}

time_t time(time_t* into) {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (into != nullptr) *into = now.tv_sec;
  return now.tv_sec;
}

int pthread_cond_timedwait(pthread_cond_t* condition, pthread_mutex_t* mutex, const timespec* until) {
  using Wait = int(pthread_cond_t*, pthread_mutex_t*, const timespec*);
  static std::atomic<Wait*> found{nullptr};
  if (found.load(std::memory_order_acquire) == nullptr) {
    found.store(reinterpret_cast<Wait*>(dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2")),
                std::memory_order_release);
  }
  auto* const next = found.load(std::memory_order_acquire);
  timespec moved;
  return next(condition, mutex, Unshifted(until, moved));
}

/// Waits of Abseil and of libstdc++'s futures until a time of the wall clock come here.
long syscall(long number, ...) {
  static std::atomic<long (*)(long, ...)> found{nullptr};
  auto* const next = Next(found, "syscall");
  long arguments[6];
  va_list list;
  va_start(list, number);
  for (long& argument : arguments) argument = va_arg(list, long);
  va_end(list);
  timespec moved;
  if (number == SYS_futex && (arguments[1] & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET) {
    arguments[3] = reinterpret_cast<long>(Unshifted(reinterpret_cast<const timespec*>(arguments[3]), moved));
  }
  return next(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]);
}

}  // extern "C"
