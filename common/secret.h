// Secrets: text that must never reach a log, an error or a file. A Secret cannot be printed, joined by Cat, logged or
// compared; its one door is Reveal(), which is easy to look for. Its memory is wiped when it goes.
#pragma once

#include <functional>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace sluice {

class Secret {
 public:
  Secret() = default;
  explicit Secret(std::string text) : text_(std::move(text)) {}
  Secret(const Secret&) = default;
  Secret(Secret&& other) noexcept;
  Secret& operator=(const Secret& other);
  Secret& operator=(Secret&& other) noexcept;
  ~Secret();

  bool empty() const { return text_.empty(); }
  /// The text. Only for what goes out on the wire.
  const std::string& Reveal() const { return text_; }

  friend std::ostream& operator<<(std::ostream&, const Secret&) = delete;

 private:
  void Wipe();
  std::string text_;
};

/// Where `${env:NAME}` and `${file:/path}` lead.
struct SecretSource {
  std::function<std::optional<std::string>(const std::string& name)> environment;
  std::function<absl::StatusOr<std::string>(const std::string& path)> file;

  /// This process's environment, and files of at most 64 KiB.
  static SecretSource OfThisProcess();
};

/// `text` with its references replaced: `${env:NAME}` by the variable, `${file:PATH}` by the file without its last
/// newline; what they give is not looked into again. `$${` stands for `${`. Any other `${…}` is left as it is.
/// INVALID_ARGUMENT or NOT_FOUND names the reference, never a value.
absl::StatusOr<Secret> ExpandSecrets(std::string_view text, const SecretSource& source);

/// Whether ExpandSecrets would look anything up.
bool HasSecretReference(std::string_view text);

}  // namespace sluice
