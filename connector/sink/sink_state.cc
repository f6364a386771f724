#include "connector/sink/sink_state.h"

#include "common/status_macros.h"
#include "common/text.h"
#include "sluice/state/v1/sink.pb.h"

namespace sluice::connector {

std::string EncodeSinkState(const SinkState& state) {
  state::v1::SinkState message;
  message.set_committed_next(state.committed_next.value());
  if (state.plan.has_value()) {
    message.mutable_plan()->set_first(state.plan->first.value());
    message.mutable_plan()->set_next(state.plan->next.value());
    message.mutable_plan()->set_dead_letters_from(state.plan->dead_letters_from.value());
  }
  message.set_topic_id(state.topic_id);
  message.set_has_schema(state.schema.has_value());
  for (const ColumnConfig& column : state.schema.value_or(Schema{})) {
    state::v1::SinkColumn* made = message.add_columns();
    made->set_name(column.name);
    made->set_from(column.from);
    made->set_type(std::string(ColumnTypeName(column.type)));
  }
  return message.SerializeAsString();
}

absl::StatusOr<SinkState> DecodeSinkState(std::string_view bytes) {
  state::v1::SinkState message;
  if (!message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return absl::DataLossError("a sink's state in __connect_state does not parse");
  }
  SinkState state{.committed_next = Offset(message.committed_next()), .topic_id = message.topic_id()};
  if (message.has_plan()) {
    state.plan = SinkPlan{Offset(message.plan().first()), Offset(message.plan().next()),
                          Offset(message.plan().dead_letters_from())};
    if (state.plan->first < state.committed_next || state.plan->next <= state.plan->first) {
      return absl::DataLossError(Cat("a sink's state in __connect_state has a plan [", state.plan->first, ", ",
                                     state.plan->next, ") that does not follow offset ", state.committed_next));
    }
  }
  if (message.has_schema()) {
    Schema schema;
    for (const state::v1::SinkColumn& column : message.columns()) {
      SLUICE_ASSIGN_OR_RETURN(const ColumnType type, ParseColumnType(column.type()));
      schema.push_back({column.name(), column.from(), type});
    }
    SLUICE_RETURN_IF_ERROR(CheckSchema(schema));
    state.schema = std::move(schema);
  }
  return state;
}

}  // namespace sluice::connector
