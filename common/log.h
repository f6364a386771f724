// Structured logging: a level, a sentence, and key=value fields, one line each, as logfmt or JSON. Made in `main` and
// handed on as `const Logger&`; there is no global one.
//
//   log.Info("segment rolled", {{"replica", id}, {"base_offset", base}, {"bytes", size}});
//   const Logger mine = log.With({{"component", "journal"}});
//
// Threads: a Logger may be used and copied from any thread; lines never mix. A logger costs one comparison below its
// level, except for what its caller does to make the fields: ask Enabled() first where that is much.
#pragma once

#include <atomic>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/text.h"

namespace sluice {

enum class LogLevel { kDebug, kInfo, kWarn, kError, kOff };
enum class LogFormat { kText, kJson };

std::string_view LogLevelName(LogLevel level);
/// "debug", "info", "warn", "error", "off".
std::optional<LogLevel> ParseLogLevel(std::string_view name);
/// "text" (logfmt), "json".
std::optional<LogFormat> ParseLogFormat(std::string_view name);
/// `environment` is SLUICE_LOG's value or null; it wins over what is configured. INVALID_ARGUMENT when it names no
/// level.
absl::StatusOr<LogLevel> ChooseLogLevel(const char* environment, LogLevel configured);

/// A key and a value that Cat can print. Numbers and booleans stay so in JSON, everything else is a string. Keys are
/// snake_case words.
class LogField {
 public:
  template <class T>
  LogField(std::string_view key, const T& value) : key_(key), text_(Text(value)), bare_(std::is_arithmetic_v<T>) {}

  std::string_view key() const { return key_; }
  std::string_view text() const { return text_; }
  bool bare() const { return bare_; }

 private:
  template <class T>
  static std::string Text(const T& value) {
    if constexpr (std::is_same_v<T, absl::Status>) {
      return value.ToString();
    } else if constexpr (std::is_same_v<T, char>) {
      return std::string(1, value);
    } else {
      return Cat(value);
    }
  }
  std::string_view key_;
  std::string text_;
  bool bare_;
};

struct LogOptions {
  LogLevel level = LogLevel::kInfo;
  LogFormat format = LogFormat::kText;
  /// Takes whole lines, with their newline, one call at a time. Unset: standard error, one write a line.
  absl::AnyInvocable<void(std::string_view line)> write;
  /// Time of a line. Unset: the system's clock; the simulator gives its own.
  absl::AnyInvocable<absl::Time()> now;
};

class Logger {
 public:
  explicit Logger(LogOptions options);
  /// Drops everything; for tests and tools that have nothing to say.
  static Logger Silent();

  /// This logger with fields that every line of it carries.
  Logger With(std::initializer_list<LogField> fields) const;

  bool Enabled(LogLevel level) const;
  /// For this logger and all that were made from it or that it was made from.
  void SetLevel(LogLevel level) const;

  void Debug(std::string_view message, std::initializer_list<LogField> fields = {}) const {
    Log(LogLevel::kDebug, message, fields);
  }
  void Info(std::string_view message, std::initializer_list<LogField> fields = {}) const {
    Log(LogLevel::kInfo, message, fields);
  }
  void Warn(std::string_view message, std::initializer_list<LogField> fields = {}) const {
    Log(LogLevel::kWarn, message, fields);
  }
  void Error(std::string_view message, std::initializer_list<LogField> fields = {}) const {
    Log(LogLevel::kError, message, fields);
  }
  void Log(LogLevel level, std::string_view message, std::initializer_list<LogField> fields = {}) const;

 private:
  struct Sink;
  Logger(std::shared_ptr<Sink> sink, std::string context) : sink_(std::move(sink)), context_(std::move(context)) {}

  std::shared_ptr<Sink> sink_;
  std::string context_;  // the fields of With, as they stand in a line
};

}  // namespace sluice
