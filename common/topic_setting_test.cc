#include "common/topic_setting.h"

#include <catch2/catch.hpp>

namespace sluice {
namespace {

TEST_CASE("a topic setting has a known name and a value in its range, or is told what it may be") {
  struct Case {
    const char* key;
    const char* value;
    const char* wrong;  // empty: nothing is
  };
  const Case cases[] = {
      {"retention.ms", "-1", ""},
      {"retention.ms", "-2", "expected a whole number of at least -1, found \"-2\""},
      {"retention.ms", "7d", "expected a whole number of at least -1, found \"7d\""},
      {"retention.bytes", "", "expected a whole number of at least -1, found \"\""},
      {"segment.ms", "1000", ""},
      {"segment.ms", "9223372036854775808", "expected a whole number of at least 1000, found \"9223372036854775808\""},
      {"segment.bytes", "1073741824", ""},
      {"segment.bytes", "1073741825", "expected a whole number from 1048576 to 1073741824, found \"1073741825\""},
      {"max.message.bytes", "33554432", ""},
      {"max.message.bytes", "33554433", "expected a whole number from 1024 to 33554432, found \"33554433\""},
      {"cleanup.policy", "delete", ""},
      {"cleanup.policy", "compact", "expected delete, found \"compact\""},
      {"cleanup.policy", "", "expected delete, found \"\""},
      {"message.timestamp.type", "LogAppendTime", ""},
      {"message.timestamp.type", "now", "expected CreateTime or LogAppendTime, found \"now\""},
      {"durability", "quorum", ""},
      {"durability", "none", "expected quorum, found \"none\""},
  };
  for (const Case& each : cases) {
    CAPTURE(each.key, each.value);
    CHECK(WrongTopicSetting(each.key, each.value) == each.wrong);
    CHECK(UnknownTopicSetting(each.key).empty());
  }
  CHECK(WrongTopicSetting("durability", "replicated").find("use \"quorum\"") != std::string::npos);
  const std::string unknown = UnknownTopicSetting("retention.hours");
  CHECK(unknown.starts_with("no setting of a topic; known are cleanup.policy, durability, "));
  CHECK(WrongTopicSetting("retention.hours", "1") == unknown);
}

TEST_CASE("who asks for Kafka's min.insync.replicas is told what always holds") {
  CHECK(UnknownTopicSetting("min.insync.replicas").find("a majority of the partition's replicas has it on disk") !=
        std::string::npos);
  CHECK(WrongTopicSetting("min.insync.replicas", "2") == UnknownTopicSetting("min.insync.replicas"));
}

}  // namespace
}  // namespace sluice
