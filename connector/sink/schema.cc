// Schemas: names of types, and what makes a list of columns sound.
#include <algorithm>
#include <set>

#include "common/text.h"
#include "connector/sink/row.h"
#include "connector/source/json_text.h"

namespace sluice::connector {

namespace {

struct TypeName {
  ColumnType type;
  std::string_view name;
};
constexpr TypeName kTypeNames[] = {
    {ColumnType::kBool, "bool"},
    {ColumnType::kInt32, "int32"},
    {ColumnType::kInt64, "int64"},
    {ColumnType::kDouble, "double"},
    {ColumnType::kString, "string"},
    {ColumnType::kTimestamp, "timestamp"},
    {ColumnType::kTimestampMs, "timestamp_ms"},
    {ColumnType::kDate, "date"},
    {ColumnType::kJson, "json"},
};
constexpr std::string_view kReserved[] = {"_extra", "_topic", "_partition", "_offset", "_timestamp", "_key"};

}  // namespace

std::string_view ColumnTypeName(ColumnType type) {
  for (const TypeName& known : kTypeNames) {
    if (known.type == type) return known.name;
  }
  return "?";
}

absl::StatusOr<ColumnType> ParseColumnType(std::string_view name) {
  std::string all;
  for (const TypeName& known : kTypeNames) {
    if (known.name == name) return known.type;
    all += Cat(all.empty() ? "" : ", ", known.name);
  }
  return absl::InvalidArgumentError(Cat("unknown column type '", name, "'; known: ", all));
}

absl::Status CheckSchema(const Schema& schema) {
  std::set<std::string> names;
  std::set<std::string> pointers;
  for (const ColumnConfig& column : schema) {
    const std::string where = Cat("column '", column.name, "'");
    if (column.name.empty()) return absl::InvalidArgumentError("a column has no name");
    for (std::string_view reserved : kReserved) {
      if (column.name == reserved) return absl::InvalidArgumentError(where + ": the sink itself has that column");
    }
    if (!names.insert(column.name).second) return absl::InvalidArgumentError(where + ": two columns have that name");
    auto tokens = ParseJsonPointer(column.from);
    if (!tokens.ok()) return absl::InvalidArgumentError(Cat(where, ": ", tokens.status().message()));
    if (tokens->empty()) return absl::InvalidArgumentError(where + ": `from` must point into the record");
    pointers.insert(column.from);
  }
  if (pointers.size() != schema.size()) {
    return absl::InvalidArgumentError("two columns take the same JSON pointer");
  }
  for (const ColumnConfig& outer : schema) {
    const auto inner = pointers.lower_bound(outer.from + "/");
    if (outer.type != ColumnType::kJson && inner != pointers.end() && inner->starts_with(outer.from + "/")) {
      return absl::InvalidArgumentError(Cat("column '", outer.name,
                                            "': only a json column may have another inside it (", *inner,
                                            " lies inside ", outer.from, ")"));
    }
  }
  return absl::OkStatus();
}

}  // namespace sluice::connector
