// What happened in a simulated world, line by line, where somebody reads it; and a hash of it always.
#pragma once

#include <cstdint>
#include <ostream>
#include <string>

#include "common/text.h"
#include "tests/simulation/sim_executor.h"

namespace sluice::simulation {

class Trace {
 public:
  Trace(const SimScheduler& scheduler, std::ostream* out) : scheduler_(scheduler), out_(out) {}

  /// `line` is only called when there is somebody to read it.
  template <class Line>
  void Say(const Line& line) {
    if (out_ != nullptr) *out_ << Stamp() << line() << '\n';
  }
  bool read() const { return out_ != nullptr; }
  void Mix(uint64_t part) { hash_ = (hash_ ^ part) * 0x100000001b3; }
  uint64_t hash() const { return hash_; }

 private:
  /// Milliseconds of the world's time, with one decimal.
  std::string Stamp() const {
    const auto micros = absl::ToInt64Microseconds(scheduler_.now());
    std::string text = Cat(micros / 1000, ".", micros % 1000 / 100);
    if (text.size() < 8) text.insert(0, 8 - text.size(), ' ');
    return text + " ";
  }

  const SimScheduler& scheduler_;
  std::ostream* const out_;
  uint64_t hash_ = 0xcbf29ce484222325;
};

}  // namespace sluice::simulation
