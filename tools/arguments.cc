#include "tools/arguments.h"

#include <charconv>

#include "common/text.h"

namespace sluice::tools {

CLI::Validator AtLeast(int64_t least) {
  return CLI::Validator(
      [least](std::string& text) {
        int64_t number = 0;
        const char* const end = text.data() + text.size();
        const auto parsed = std::from_chars(text.data(), end, number);
        const bool good = parsed.ec == std::errc() && parsed.ptr == end && number >= least;
        return good ? std::string() : Cat("expected a whole number, at least ", least, ", got \"", text, "\"");
      },
      "");
}

std::string WrongCommand(const CLI::App& app) {
  const CLI::App* at = &app;
  std::string nouns;
  while (!at->get_subcommands().empty()) {
    at = at->get_subcommands().front();
    nouns += at->get_name() + " ";
  }
  if (at->get_require_subcommand_min() == 0) return {};
  for (const std::string& word : app.remaining(true)) {
    if (word.empty() || word.front() == '-') continue;
    std::string known;
    for (const CLI::App* each : at->get_subcommands([](const CLI::App*) { return true; })) {
      known += Cat(known.empty() ? "" : ", ", each->get_name());
    }
    return Cat("there is no command \"", nouns, word, "\"; known are ", known, ". More: sluice ", nouns, "--help");
  }
  return {};
}

}  // namespace sluice::tools
