#include "common/secret.h"

#include <catch2/catch.hpp>
#include <cstdlib>
#include <string>
#include <type_traits>

#include "common/log.h"
#include "common/text.h"

namespace sluice {

namespace {

SecretSource Known() {
  SecretSource source;
  source.environment = [](const std::string& name) -> std::optional<std::string> {
    if (name == "TOKEN") return "s3cret";
    if (name == "NESTED") return "${env:TOKEN}";
    return std::nullopt;
  };
  source.file = [](const std::string& path) -> absl::StatusOr<std::string> {
    if (path == "/run/secret") return "from file\n";
    return absl::NotFoundError("cannot be read");
  };
  return source;
}

std::string Expanded(std::string_view text) {
  const auto secret = ExpandSecrets(text, Known());
  INFO(secret.status().ToString());
  REQUIRE(secret.ok());
  return secret->Reveal();
}

template <class T>
concept Printable = requires(std::ostream& os, const T& value) {
  os << value;
};
template <class T>
concept Joinable = requires(std::string out, const T& value) {
  internal::AppendPiece(&out, value);
};

}  // namespace

TEST_CASE("a secret can be neither printed nor joined into text nor compared") {
  STATIC_REQUIRE_FALSE(Printable<Secret>);
  STATIC_REQUIRE_FALSE(Joinable<Secret>);
  STATIC_REQUIRE_FALSE(std::equality_comparable<Secret>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<Secret, std::string>);
  STATIC_REQUIRE(Printable<std::string>);
  STATIC_REQUIRE(Joinable<std::string>);
}

TEST_CASE("references are replaced wherever they stand, and only those") {
  REQUIRE(Expanded("plain") == "plain");
  REQUIRE(Expanded("Bearer ${env:TOKEN}!") == "Bearer s3cret!");
  REQUIRE(Expanded("${file:/run/secret}${env:TOKEN}") == "from files3cret");
  REQUIRE(Expanded("${interval.start} $5 $") == "${interval.start} $5 $");
  REQUIRE(Expanded("$${env:TOKEN}") == "${env:TOKEN}");
  REQUIRE(Expanded("${env:NESTED}") == "${env:TOKEN}");
}

TEST_CASE("a reference that leads nowhere is an error that names it") {
  const auto unset = ExpandSecrets("x${env:TOKEN} ${env:NOPE}", Known()).status();
  REQUIRE(unset.code() == absl::StatusCode::kNotFound);
  REQUIRE(Message(unset) == "${env:NOPE}: the variable is not set");
  REQUIRE(Message(ExpandSecrets("${file:/none}", Known()).status()) == "${file:/none}: cannot be read");
  REQUIRE(ExpandSecrets("${env:TOKEN", Known()).status().code() == absl::StatusCode::kInvalidArgument);
  REQUIRE(ExpandSecrets("${env:}", Known()).status().code() == absl::StatusCode::kInvalidArgument);
}

TEST_CASE("text can be asked whether it refers to secrets") {
  REQUIRE(HasSecretReference("a ${env:X}"));
  REQUIRE(HasSecretReference("${interval.start} ${file:/x}"));
  REQUIRE_FALSE(HasSecretReference("${interval.start}"));
  REQUIRE_FALSE(HasSecretReference("$${env:X}"));
}

TEST_CASE("a secret that was moved away is empty") {
  Secret a("a long enough secret to be on the heap");
  const Secret b = std::move(a);
  REQUIRE(a.empty());
  Secret c("other");
  c = b;
  REQUIRE(c.Reveal() == b.Reveal());
}

TEST_CASE("this process's environment and files are read") {
  REQUIRE(setenv("SLUICE_SECRET_TEST", "value", 1) == 0);
  const SecretSource source = SecretSource::OfThisProcess();
  REQUIRE(ExpandSecrets("${env:SLUICE_SECRET_TEST}", source)->Reveal() == "value");
  REQUIRE(ExpandSecrets("${file:/no/such/file}", source).status().code() == absl::StatusCode::kNotFound);
  REQUIRE(ExpandSecrets("${file:/dev/zero}", source).status().code() == absl::StatusCode::kInvalidArgument);
  REQUIRE(ExpandSecrets("${file:/dev/null}", source)->empty());
}

}  // namespace sluice
