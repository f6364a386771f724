// What the command line asks of its arguments beside what CLI11 knows.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

namespace sluice::tools {

/// A whole number that is not less; CLI11's own checks print the bounds of a double.
CLI::Validator AtLeast(int64_t least);

/// The word on the command line that is no command where a command was needed, with those that are: for the error that
/// CLI11 tells as "A subcommand is required". Empty where there is no such word.
std::string WrongCommand(const CLI::App& app);

}  // namespace sluice::tools
