// Secret: a token or password that came from the environment, a file or the configuration, in a type that nothing
// formats: no stream operator, no conversion, no ToString. What must have the text asks for it by name, which is easy
// to search for.
//
// Threads: a value type; copies may be used from different threads.
#pragma once

#include <string>
#include <utility>

namespace sluice::connector {

class Secret {
 public:
  Secret() = default;
  explicit Secret(std::string text) : text_(std::move(text)) {}

  bool empty() const { return text_.empty(); }
  /// The text itself. Only for what is sent to the other side: never for a message, a log or a metric.
  const std::string& Reveal() const { return text_; }

  friend bool operator==(const Secret&, const Secret&) = default;

 private:
  std::string text_;
};

}  // namespace sluice::connector
