#include "tools/line_reader.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "common/status_macros.h"
#include "common/text.h"

namespace sluice::tools {
namespace {

constexpr size_t kPieceBytes = size_t{256} << 10;
constexpr int kWaitMs = 200;

}  // namespace

absl::StatusOr<bool> LineReader::Next(std::string_view* line) {
  while (true) {
    if (stop_()) return false;
    const size_t feed = buffer_.find('\n', scanned_);
    if (feed != std::string::npos || (end_ && begin_ < buffer_.size())) {
      const size_t until = feed != std::string::npos ? feed : buffer_.size();
      *line = std::string_view(buffer_).substr(begin_, until - begin_);
      begin_ = scanned_ = std::min(until + 1, buffer_.size());
      ++line_number_;
      if (line->size() <= line_bytes_max_) return true;
    } else {
      if (end_) return false;
      scanned_ = buffer_.size();
      if (buffer_.size() - begin_ <= line_bytes_max_) {
        SLUICE_ASSIGN_OR_RETURN(const bool more, Fill());
        if (!more) return false;
        continue;
      }
      ++line_number_;
    }
    return absl::InvalidArgumentError(
        Cat("line ", line_number_, " of the input is longer than ", line_bytes_max_, " bytes"));
  }
}

// False when stopped.
absl::StatusOr<bool> LineReader::Fill() {
  buffer_.erase(0, begin_);
  scanned_ -= begin_;
  begin_ = 0;
  while (true) {
    if (stop_()) return false;
    pollfd waiting{fd_, POLLIN, 0};
    const int ready = poll(&waiting, 1, kWaitMs);
    if (ready == 0 || (ready < 0 && errno == EINTR)) continue;
    const size_t old = buffer_.size();
    buffer_.resize(old + kPieceBytes);
    const ssize_t count = read(fd_, buffer_.data() + old, kPieceBytes);
    const int error = errno;
    buffer_.resize(old + static_cast<size_t>(std::max<ssize_t>(count, 0)));
    if (count < 0 && error == EINTR) continue;
    if (count < 0) {
      return absl::InternalError(Cat("the input cannot be read after line ", line_number_, ": ", strerror(error)));
    }
    end_ = count == 0;
    return true;
  }
}

}  // namespace sluice::tools
