#include "common/log.h"

#include <unistd.h>

#include <cerrno>
#include <iterator>
#include <mutex>
#include <utility>

#include "absl/time/clock.h"

namespace sluice {

namespace {

constexpr std::string_view kLevels[] = {"debug", "info", "warn", "error", "off"};

void WriteToStandardError(std::string_view line) {
  while (!line.empty()) {
    const ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;  // nowhere left to say it
    line.remove_prefix(static_cast<size_t>(written));
  }
}

// Bytes of the well-formed UTF-8 character at the front; 0 when there is none.
size_t Utf8Length(std::string_view text) {
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<uint8_t>(text[i]) : uint8_t{0}; };
  const auto trail = [&](size_t i, uint8_t low = 0x80, uint8_t high = 0xbf) {
    return byte(i) >= low && byte(i) <= high;
  };
  const uint8_t first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return trail(1) ? 2 : 0;
  if (first >= 0xe0 && first <= 0xef) {
    return trail(1, first == 0xe0 ? 0xa0 : 0x80, first == 0xed ? 0x9f : 0xbf) && trail(2) ? 3 : 0;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    return trail(1, first == 0xf0 ? 0x90 : 0x80, first == 0xf4 ? 0x8f : 0xbf) && trail(2) && trail(3) ? 4 : 0;
  }
  return 0;
}

// In JSON's quotes. A line stays one line and valid UTF-8, whatever a peer or a file put into a field.
void AppendQuoted(std::string* out, std::string_view text) {
  out->push_back('"');
  while (!text.empty()) {
    const size_t length = Utf8Length(text);
    const char c = text.front();
    if (length == 0) {
      out->append("\\ufffd");
    } else if (c == '"' || c == '\\') {
      out->push_back('\\');
      out->push_back(c);
    } else if (c == '\n') {
      out->append("\\n");
    } else if (static_cast<uint8_t>(c) < 0x20 || c == 0x7f) {
      out->append(Cat("\\u", Hex{static_cast<uint8_t>(c), 4}));
    } else {
      out->append(text.substr(0, length));
    }
    text.remove_prefix(length == 0 ? 1 : length);
  }
  out->push_back('"');
}

bool NeedsQuotes(std::string_view text) {
  if (text.empty()) return true;
  for (const char c : text) {
    if (static_cast<uint8_t>(c) <= 0x20 || static_cast<uint8_t>(c) >= 0x7f || c == '"' || c == '=' || c == '\\')
      return true;
  }
  return false;
}

void AppendField(std::string* out, LogFormat format, std::string_view key, std::string_view text, bool bare) {
  if (format == LogFormat::kText) {
    out->push_back(' ');
    out->append(key);
    out->push_back('=');
    if (NeedsQuotes(text)) {
      AppendQuoted(out, text);
    } else {
      out->append(text);
    }
    return;
  }
  out->push_back(',');
  AppendQuoted(out, key);
  out->push_back(':');
  // Not-a-number and infinity are no JSON numbers.
  if (bare && text.find_first_of("ni") == std::string_view::npos) {
    out->append(text);
  } else {
    AppendQuoted(out, text);
  }
}

std::string Timestamp(absl::Time time) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", time, absl::UTCTimeZone());
}

}  // namespace

struct Logger::Sink {
  explicit Sink(LogOptions given) : level(given.level), options(std::move(given)) {}
  std::atomic<LogLevel> level;
  std::mutex mutex;  // guards the two functions in options
  LogOptions options;
};

std::string_view LogLevelName(LogLevel level) {
  return kLevels[static_cast<size_t>(level)];
}

std::optional<LogLevel> ParseLogLevel(std::string_view name) {
  for (size_t i = 0; i < std::size(kLevels); ++i) {
    if (kLevels[i] == name) return static_cast<LogLevel>(i);
  }
  return std::nullopt;
}

std::optional<LogFormat> ParseLogFormat(std::string_view name) {
  if (name == "text") return LogFormat::kText;
  if (name == "json") return LogFormat::kJson;
  return std::nullopt;
}

absl::StatusOr<LogLevel> ChooseLogLevel(const char* environment, LogLevel configured) {
  if (environment == nullptr || *environment == '\0') return configured;
  const std::optional<LogLevel> level = ParseLogLevel(environment);
  if (level.has_value()) return *level;
  return absl::InvalidArgumentError(Cat("SLUICE_LOG is \"", environment, "\", not debug, info, warn, error or off"));
}

Logger::Logger(LogOptions options) {
  if (!options.write) options.write = WriteToStandardError;
  if (!options.now) options.now = [] { return absl::Now(); };
  sink_ = std::make_shared<Sink>(std::move(options));
}

Logger Logger::Silent() {
  LogOptions options;
  options.level = LogLevel::kOff;
  return Logger(std::move(options));
}

Logger Logger::With(std::initializer_list<LogField> fields) const {
  std::string context = context_;
  for (const LogField& field : fields) {
    AppendField(&context, sink_->options.format, field.key(), field.text(), field.bare());
  }
  return Logger(sink_, std::move(context));
}

bool Logger::Enabled(LogLevel level) const {
  return level != LogLevel::kOff && level >= sink_->level.load(std::memory_order_relaxed);
}

void Logger::SetLevel(LogLevel level) const {
  sink_->level.store(level, std::memory_order_relaxed);
}

void Logger::Log(LogLevel level, std::string_view message, std::initializer_list<LogField> fields) const {
  if (!Enabled(level)) return;
  const LogFormat format = sink_->options.format;
  std::string tail;
  AppendField(&tail, format, "level", LogLevelName(level), false);
  AppendField(&tail, format, "msg", message, false);
  tail += context_;
  for (const LogField& field : fields) AppendField(&tail, format, field.key(), field.text(), field.bare());
  tail += format == LogFormat::kJson ? "}\n" : "\n";
  const std::lock_guard lock(sink_->mutex);
  const std::string time = Timestamp(sink_->options.now());
  sink_->options.write(
      Cat(format == LogFormat::kJson ? "{\"ts\":\"" : "ts=", time, format == LogFormat::kJson ? "\"" : "", tail));
}

}  // namespace sluice
