// Lines of a file descriptor, read in large pieces, with a bound on their length; waits can be ended from outside.
// One thread.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace sluice::tools {

class LineReader {
 public:
  /// `stop` is asked at least every 200 ms while waiting for input; true ends the input there.
  LineReader(int fd, size_t line_bytes_max, std::function<bool()> stop)
      : fd_(fd), line_bytes_max_(line_bytes_max), stop_(std::move(stop)) {}

  /// The next line without its line feed, also a last one that has none; false at the end. The view holds until the
  /// next call. INVALID_ARGUMENT for a line that is too long, INTERNAL when reading fails; both name the line.
  absl::StatusOr<bool> Next(std::string_view* line);
  /// Number of the line that Next gave last, from 1.
  int64_t line_number() const { return line_number_; }

 private:
  absl::StatusOr<bool> Fill();

  const int fd_;
  const size_t line_bytes_max_;
  const std::function<bool()> stop_;
  std::string buffer_;
  size_t begin_ = 0;    // of what was not given out
  size_t scanned_ = 0;  // no line feed before this
  bool end_ = false;
  int64_t line_number_ = 0;
};

}  // namespace sluice::tools
