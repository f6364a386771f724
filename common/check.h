// SLUICE_CHECK: an invariant of our own. When it does not hold, the process stops with context rather than go on with
// state that can no longer be trusted. Never for input, peers or disks: those are statuses.
#pragma once

#include <sstream>
#include <string>

namespace sluice::internal {

class CheckFailure {
 public:
  CheckFailure(const char* file, int line, const char* condition);
  [[noreturn]] ~CheckFailure();  // prints and aborts
  std::ostream& stream() { return stream_; }

 private:
  std::ostringstream stream_;
};

}  // namespace sluice::internal

// Usage: SLUICE_CHECK(a <= b) << "replica " << id;
#define SLUICE_CHECK(condition) \
  while (!(condition)) ::sluice::internal::CheckFailure(__FILE__, __LINE__, #condition).stream()
