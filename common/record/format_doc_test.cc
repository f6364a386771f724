// The worked examples of docs/formats.md are parsed out of the page, so that page and program cannot part.
#include <catch2/catch.hpp>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "common/crc32c.h"
#include "common/record/control.h"
#include "common/record/record.h"
#include "common/text.h"

namespace sluice::record {

namespace {

std::string Page() {
  std::ifstream in(SLUICE_SOURCE_DIR "/docs/formats.md");
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

// The bytes of the block that opens with "```hex NAME": on each line, pairs of digits up to '#'.
std::string Example(std::string_view name) {
  const std::string page = Page();
  const std::string opening = Cat("```hex ", name, "\n");
  size_t at = page.find(opening);
  REQUIRE(at != std::string::npos);
  at += opening.size();
  const size_t end = page.find("```", at);
  REQUIRE(end != std::string::npos);
  std::string bytes;
  bool comment = false;
  for (; at < end; ++at) {
    if (page[at] == '#') comment = true;
    if (page[at] == '\n') comment = false;
    if (comment || page[at] == ' ' || page[at] == '\n') continue;
    bytes.push_back(static_cast<char>(std::stoi(page.substr(at, 2), nullptr, 16)));
    ++at;
  }
  return bytes;
}

}  // namespace

TEST_CASE("the page's batch is what this program writes, and reads as the page says") {
  const std::string example = Example("record-batch");
  BatchBuilder builder;
  builder.SetProducer(9, 1, 40);
  const std::vector<Header> headers = {{"h", "1"}};
  REQUIRE(builder.Append(1700000000000, "k1", "hello").ok());
  REQUIRE(builder.Append(1700000000005, std::nullopt, std::nullopt, headers).ok());
  auto built = builder.Build();
  REQUIRE(built.ok());
  const Batch written = (*std::move(built)).Assign(Offset(256), LeaderEpoch(3));
  REQUIRE(written.bytes().view() == example);

  const auto stored = Batch::FromStored(Bytes::Copy(example));
  REQUIRE(stored.ok());
  REQUIRE(stored->view().VerifyRecords({}).ok());
  REQUIRE(Page().find(Cat("CRC32C over all ", example.size(), " bytes: `", Hex{stored->whole_crc32c(), 8}, "`")) !=
          std::string::npos);
  auto reader = RecordReader::Open(stored->view());
  REQUIRE(reader.ok());
  Record record;
  REQUIRE(*reader->Next(&record));
  REQUIRE(record == Record{1700000000000, "k1", "hello", {}, Offset(256)});
  REQUIRE(*reader->Next(&record));
  REQUIRE(record == Record{1700000000005, std::nullopt, std::nullopt, headers, Offset(257)});
  REQUIRE_FALSE(*reader->Next(&record));
}

TEST_CASE("the page's control batch is what this program writes, and reads as the page says") {
  const std::string example = Example("control-batch");
  const Batch written = MakeControlBatch(LeaderChange{NodeId(7)}, 1700000000000).Assign(Offset(258), LeaderEpoch(4));
  REQUIRE(written.bytes().view() == example);
  const auto stored = Batch::FromStored(Bytes::Copy(example));
  REQUIRE(stored.ok());
  REQUIRE(DecodeControlBatch(stored->view()).value() == ControlRecord(LeaderChange{NodeId(7)}));
}

}  // namespace sluice::record
