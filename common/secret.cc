#include "common/secret.h"

#include <string.h>

#include <cstdlib>
#include <fstream>
#include <utility>

#include "common/status_macros.h"
#include "common/text.h"

namespace sluice {

namespace {

constexpr std::string_view kEnvironment = "${env:";
constexpr std::string_view kFile = "${file:";
constexpr std::string_view kEscaped = "$${";
constexpr size_t kFileBytesMax = 64 << 10;

absl::StatusOr<std::string> ReadSmallFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return absl::NotFoundError("cannot be read");
  std::string text(kFileBytesMax + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (in.bad()) return absl::NotFoundError("cannot be read");
  text.resize(static_cast<size_t>(in.gcount()));
  if (text.size() > kFileBytesMax) return absl::InvalidArgumentError(Cat("is larger than ", kFileBytesMax, " bytes"));
  return text;
}

// What stands between the opening at the front of `rest` and its brace, which are both taken off.
absl::StatusOr<std::string> TakeReference(std::string_view* rest, std::string_view opening) {
  const size_t end = rest->find('}');
  if (end == std::string_view::npos) return absl::InvalidArgumentError(Cat(opening, "…: the brace is not closed"));
  std::string name(rest->substr(opening.size(), end - opening.size()));
  if (name.empty()) return absl::InvalidArgumentError(Cat(opening, "}: names nothing"));
  rest->remove_prefix(end + 1);
  return name;
}

}  // namespace

// By copy: a moved-from short string keeps its bytes.
Secret::Secret(Secret&& other) noexcept {
  text_ = other.text_;
  other.Wipe();
}

Secret& Secret::operator=(const Secret& other) {
  if (this != &other) {
    Wipe();
    text_ = other.text_;
  }
  return *this;
}

Secret& Secret::operator=(Secret&& other) noexcept {
  if (this != &other) {
    Wipe();
    text_.swap(other.text_);
  }
  return *this;
}

Secret::~Secret() {
  Wipe();
}

void Secret::Wipe() {
  explicit_bzero(text_.data(), text_.size());
  text_.clear();
}

SecretSource SecretSource::OfThisProcess() {
  SecretSource source;
  source.environment = [](const std::string& name) -> std::optional<std::string> {
    const char* const value = std::getenv(name.c_str());
    if (value == nullptr) return std::nullopt;
    return std::string(value);
  };
  source.file = ReadSmallFile;
  return source;
}

absl::StatusOr<Secret> ExpandSecrets(std::string_view text, const SecretSource& source) {
  std::string out;
  std::string_view rest = text;
  while (!rest.empty()) {
    const size_t dollar = rest.find('$');
    out += rest.substr(0, dollar);
    if (dollar == std::string_view::npos) break;
    rest.remove_prefix(dollar);
    if (rest.starts_with(kEscaped)) {
      out += "${";
      rest.remove_prefix(kEscaped.size());
    } else if (rest.starts_with(kEnvironment)) {
      SLUICE_ASSIGN_OR_RETURN(const std::string name, TakeReference(&rest, kEnvironment));
      const std::optional<std::string> value = source.environment(name);
      if (!value.has_value()) return absl::NotFoundError(Cat(kEnvironment, name, "}: the variable is not set"));
      out += *value;
    } else if (rest.starts_with(kFile)) {
      SLUICE_ASSIGN_OR_RETURN(const std::string path, TakeReference(&rest, kFile));
      const absl::StatusOr<std::string> content = source.file(path);
      if (!content.ok()) {
        return absl::Status(content.status().code(), Cat(kFile, path, "}: ", Message(content.status())));
      }
      std::string_view value = *content;
      if (value.ends_with('\n')) value.remove_suffix(1);
      if (value.ends_with('\r')) value.remove_suffix(1);
      out += value;
    } else {
      out += '$';
      rest.remove_prefix(1);
    }
  }
  return Secret(std::move(out));
}

bool HasSecretReference(std::string_view text) {
  for (size_t at = text.find("${"); at != std::string_view::npos; at = text.find("${", at + 1)) {
    const bool escaped = at > 0 && text[at - 1] == '$';
    if (!escaped && (text.substr(at).starts_with(kEnvironment) || text.substr(at).starts_with(kFile))) return true;
  }
  return false;
}

}  // namespace sluice
