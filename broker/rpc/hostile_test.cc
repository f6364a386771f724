// What no client of ours sends, as bytes on a real connection: every rpc ends with a status, in time, nothing of it is
// written, and the server lives on.
#include <google/protobuf/stubs/logging.h>

#include <catch2/catch.hpp>
#include <random>

#include "broker/limits.h"
#include "broker/rpc/test_node.h"
#include "common/crc32c.h"

namespace sluice::broker::rpc {
namespace {

/// Every rpc there is, with a message that it takes.
std::vector<std::pair<std::string, std::string>> SoundRequests() {
  v1::ProduceRequest produce;
  *produce.add_items() = ItemOf("t", BatchOf(2, 30));
  v1::ProduceItem& structured = *produce.add_items();
  structured.set_topic("t");
  structured.add_records()->set_value("v");
  structured.mutable_records(0)->add_headers()->set_key("h");
  v1::FetchRequest fetch;
  fetch.add_items()->set_topic("t");
  v1::ConsumeRequest consume;
  consume.set_credit_bytes(1000);
  consume.add_assign()->set_topic("t");
  consume.add_unassign()->set_topic("u");
  v1::ListOffsetsRequest offsets;
  offsets.add_items()->set_topic("t");
  offsets.mutable_items(0)->set_kind(v1::ListOffsetsItem::TIMESTAMP);
  v1::DeleteRecordsRequest deletion;
  deletion.add_items()->set_topic("u");
  deletion.mutable_items(0)->set_before_offset(1);
  v1::CreateTopicRequest create;
  create.set_name("another");
  (*create.mutable_config())["retention.ms"] = "5";
  v1::AlterTopicRequest alter;
  alter.set_name("u");
  (*alter.mutable_set())["retention.ms"] = "7";
  alter.add_unset("segment.ms");
  v1::AddPartitionsRequest more;
  more.set_name("u");
  more.set_partitions(2);
  v1::DescribeTopicRequest describe;
  describe.set_name("t");
  v1::DeleteTopicRequest gone;
  gone.set_name("v");
  return {{"/sluice.v1.Log/Produce", produce.SerializeAsString()},
          {"/sluice.v1.Log/Append", produce.SerializeAsString()},
          {"/sluice.v1.Log/Consume", consume.SerializeAsString()},
          {"/sluice.v1.Log/Fetch", fetch.SerializeAsString()},
          {"/sluice.v1.Log/ListOffsets", offsets.SerializeAsString()},
          {"/sluice.v1.Log/DeleteRecords", deletion.SerializeAsString()},
          {"/sluice.v1.Topics/Create", create.SerializeAsString()},
          {"/sluice.v1.Topics/List", "\x08\x01"},
          {"/sluice.v1.Topics/Describe", describe.SerializeAsString()},
          {"/sluice.v1.Topics/Alter", alter.SerializeAsString()},
          {"/sluice.v1.Topics/AddPartitions", more.SerializeAsString()},
          {"/sluice.v1.Topics/Delete", gone.SerializeAsString()},
          {"/sluice.v1.Cluster/Describe", ""},
          {"/grpc.health.v1.Health/Check", "\x0a\x0dsluice.v1.Log"},
          {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "\x22\x0dsluice.v1.Log"}};
}

class HostileNode : public TestNode {
 public:
  HostileNode() {
    for (const char* topic : {"t", "u", "v"}) CreateTopic(topic);
    end_ = Append(ItemOf("t", BatchOf(1, 10))).next_offset();
  }
  /// Sends the bytes; the call must end by itself, with the connection still there.
  grpc::Status Send(const std::string& method, const std::string& bytes) {
    const grpc::Status status = Raw(method, bytes);
    if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED ||
        status.error_code() == grpc::StatusCode::UNAVAILABLE) {
      FAIL(method << " with " << bytes.size() << " bytes ended with " << status.error_code() << " "
                  << status.error_message());
    }
    return status;
  }
  /// Whether the log of "t" ends where it did.
  bool NothingWritten() { return Fetch("t", 0, false).results(0).high_watermark() == end_; }
  int64_t end() const { return end_; }

 private:
  int64_t end_ = 0;
};

TEST_CASE("Every rpc cut short at any byte ends with a status") {
  HostileNode node;
  for (const auto& [method, sound] : SoundRequests()) {
    for (size_t length = 0; length < sound.size(); ++length) node.Send(method, sound.substr(0, length));
  }
  CHECK(!node.Append(ItemOf("t", BatchOf(1, 1))).has_error());
}

TEST_CASE("Every rpc with bytes changed at random, and with random bytes, ends with a status") {
  HostileNode node;
  std::mt19937 random(5);
  for (const auto& [method, sound] : SoundRequests()) {
    for (int round = 0; round < 60; ++round) {
      std::string bytes = sound;
      for (size_t flips = 1 + random() % 4; flips > 0 && !bytes.empty(); --flips) {
        bytes[random() % bytes.size()] = static_cast<char>(random());
      }
      node.Send(method, bytes);
      bytes.assign(random() % 2000, '\0');
      for (char& byte : bytes) byte = static_cast<char>(random());
      node.Send(method, bytes);
    }
  }
  CHECK(!node.Append(ItemOf("t", BatchOf(1, 1))).has_error());
}

TEST_CASE("Strings that are not UTF-8 do not fill standard error") {
  static int lines = 0;
  google::protobuf::SetLogHandler([](google::protobuf::LogLevel, const char*, int, const std::string&) { ++lines; });
  HostileNode node;
  for (int i = 0; i < 10; ++i) {
    CHECK(node.Send("/sluice.v1.Topics/Delete", "\x0a\x02\xff\xff").error_code() == grpc::StatusCode::INVALID_ARGUMENT);
  }
  CHECK(lines == 0);
}

TEST_CASE("Every rpc refuses what is too large or nested too deep, and holds none of it") {
  HostileNode node;
  const std::string groups(200'000, '\x0b');  // group 1 in group 1 in …
  std::string lengths;                        // field 1 of length n, that holds field 1 of length n - k, …
  for (int i = 0; i < 20'000; ++i) lengths = "\x0a\x04" + lengths.substr(0, 100'000);
  for (const auto& [method, sound] : SoundRequests()) {
    const bool produce = method == "/sluice.v1.Log/Produce" || method == "/sluice.v1.Log/Append";
    CHECK(node.Send(method, groups).error_code() == grpc::StatusCode::INVALID_ARGUMENT);
    node.Send(method, lengths);
    // Beyond what a small request may have, and beyond what any message may.
    if (!produce) {
      CHECK(node.Send(method, std::string(2 << 20, '\x08')).error_code() == grpc::StatusCode::INVALID_ARGUMENT);
    }
    CHECK(node.Send(method, std::string(17 << 20, '\x08')).error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED);
  }
  CHECK(node.NothingWritten());
  CHECK(Soon([&] { return node.server().stats().calls_active == 0 && node.server().stats().inflight_bytes == 0; }));
  CHECK(Soon([&] { return node.stats().read_bytes == 0; }));
}

TEST_CASE("More items than the bound are refused by every rpc that takes items") {
  HostileNode node;
  for (const char* method : {"/sluice.v1.Log/Append", "/sluice.v1.Log/Fetch", "/sluice.v1.Log/ListOffsets",
                             "/sluice.v1.Log/DeleteRecords"}) {
    std::string items;
    const std::string field =
        std::string_view(method).ends_with("Records") || std::string_view(method).ends_with("Offsets")
            ? "\x0a"   // items = 1
            : "\x12";  // items = 2
    for (size_t i = 0; i <= kItemsMax; ++i) items += field + std::string(1, '\0');
    CHECK(node.Send(method, items).error_code() == grpc::StatusCode::INVALID_ARGUMENT);
  }
  CHECK(node.Send("/sluice.v1.Log/Nope", "").error_code() == grpc::StatusCode::UNIMPLEMENTED);
  CHECK(node.Send("/", "").error_code() == grpc::StatusCode::UNIMPLEMENTED);
}

void Seal(std::string* batch) {
  const uint32_t crc = Crc32c(std::string_view(*batch).substr(record::kCrcCoversFrom));
  for (size_t i = 0; i < 4; ++i) (*batch)[record::kCrcAt + i] = static_cast<char>(crc >> (24 - 8 * i));
}

TEST_CASE("A batch with a right checksum that lies about what is in it is refused, and nothing of it written") {
  HostileNode node;
  const std::string sound = BatchOf(2, 10);
  const size_t first = record::kBatchHeaderBytes;
  const size_t second = first + (sound.size() - first) / 2;
  struct Lie {
    const char* what;
    size_t at;
    char value;
  };
  // Places of the header as docs/formats.md has them; a record is length, attributes, timestamp delta, offset delta, …
  const Lie lies[] = {{"the last offset delta", 26, 2},
                      {"the last offset delta, negative", 23, '\x80'},
                      {"the number of records", 60, 3},
                      {"the number of records, huge", 57, 0x7f},
                      {"no records", 60, 0},
                      {"a control batch", 22, 0x20},
                      {"a transactional batch", 22, 0x10},
                      {"an unknown codec", 22, 7},
                      {"an unknown magic", 16, 3},
                      {"the second offset delta", second + 3, 6},
                      {"a record's length", first, 0x7e},
                      {"a record's length, negative", first, 1},
                      {"a key's length", first + 4, 0x7e},
                      {"a value's length", first + 5, 0x7e},
                      {"the batch's length", 11, 1},
                      {"the batch's length, negative", 8, '\x80'}};
  for (const Lie& lie : lies) {
    std::string batch = sound;
    REQUIRE(batch[lie.at] != lie.value);
    batch[lie.at] = lie.value;
    Seal(&batch);
    const v1::ProduceResult result = node.Append(ItemOf("t", batch));
    INFO(lie.what << ": " << result.error().message());
    CHECK(result.error().reason() == v1::ErrorDetail::CORRUPT_BATCH);
    CHECK(result.base_offset() == -1);
  }
  CHECK(node.NothingWritten());
  // What claims to be compressed is not inflated before somebody wants its records: then it is an error, not a crash.
  std::string compressed = sound;
  compressed[22] = static_cast<char>(record::Codec::kZstd);
  Seal(&compressed);
  const v1::ProduceResult taken = node.Append(ItemOf("t", compressed));
  if (!taken.has_error()) {
    CHECK(node.Fetch("t", taken.base_offset(), true).results(0).error().reason() == v1::ErrorDetail::CORRUPT_BATCH);
    CHECK(!node.Fetch("t", taken.base_offset(), false).results(0).has_error());
  }
}

}  // namespace
}  // namespace sluice::broker::rpc
