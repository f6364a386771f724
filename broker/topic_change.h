// What people ask of topics, as it travels to the controller's leader, and what it answers.
#pragma once

#include <cstdint>
#include <string>
#include <variant>

#include "broker/api.h"
#include "common/types.h"

namespace sluice::broker {

struct AddPartitionsSpec {
  std::string name;
  int32_t partitions = 0;  ///< The new total.
};
struct DeleteTopicSpec {
  std::string name;
};
using TopicChange = std::variant<CreateTopicSpec, AlterTopicSpec, AddPartitionsSpec, DeleteTopicSpec>;

inline const std::string& NameOf(const TopicChange& change) {
  return std::visit([](const auto& spec) -> const std::string& { return spec.name; }, change);
}

struct TopicChanged {
  TopicInfo topic;  ///< As it is then; as it was last, where it was deleted.
  Offset applied;   ///< Who has applied group 0's log up to here has the change.
};

}  // namespace sluice::broker
