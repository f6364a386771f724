#include "broker/topic_settings.h"

#include <catch2/catch.hpp>

#include "common/text.h"
#include "common/topic_setting.h"

namespace sluice::broker {
namespace {

std::string ErrorOf(const TopicConfig& config) {
  const auto parsed = ParseTopicSettings(config, {});
  REQUIRE(absl::IsInvalidArgument(parsed.status()));
  return std::string(Message(parsed.status()));
}

TEST_CASE("topic settings go by Kafka's names over the node's defaults") {
  TopicSettings defaults;
  defaults.segment_bytes = 8 << 20;
  const auto settings = ParseTopicSettings({{"retention.ms", "-1"},
                                            {"retention.bytes", "1000"},
                                            {"segment.ms", "60000"},
                                            {"max.message.bytes", "2048"},
                                            {"cleanup.policy", "delete"},
                                            {"message.timestamp.type", "LogAppendTime"},
                                            {"durability", "quorum"}},
                                           defaults);
  REQUIRE(settings.ok());
  CHECK_FALSE(settings->retention_age.has_value());
  CHECK(settings->retention_bytes == 1000);
  CHECK(settings->segment_bytes == 8 << 20);
  CHECK(settings->segment_age == absl::Minutes(1));
  CHECK(settings->message_bytes_max == 2048);
  CHECK(settings->timestamp_type == TimestampType::kLogAppendTime);
}

TEST_CASE("a topic setting that is unknown or wrong is refused by name") {
  CHECK(ErrorOf({{"retention.hours", "1"}}).find("retention.hours") != std::string::npos);
  CHECK(ErrorOf({{"retention.ms", "7d"}}).find("retention.ms") != std::string::npos);
  CHECK(ErrorOf({{"cleanup.policy", "compact"}}).find("cleanup.policy") != std::string::npos);
  CHECK(ErrorOf({{"message.timestamp.type", "now"}}).find("LogAppendTime") != std::string::npos);
  CHECK(ErrorOf({{"durability", "replicated"}}).find("use \"quorum\"") != std::string::npos);
  CHECK(ErrorOf({{"durability", "none"}}).find("durability") != std::string::npos);
  CHECK(ErrorOf({{"segment.bytes", "1048576"}, {"max.message.bytes", "1048577"}}).find("max.message.bytes") !=
        std::string::npos);
}

TEST_CASE("every topic setting that there is means something, and Kafka's min.insync.replicas is told what holds") {
  const TopicConfig all = {{"cleanup.policy", "delete"},  {"durability", "quorum"},
                           {"max.message.bytes", "2048"}, {"message.timestamp.type", "CreateTime"},
                           {"retention.bytes", "-1"},     {"retention.ms", "-1"},
                           {"segment.bytes", "1048576"},  {"segment.ms", "1000"}};
  CHECK(ParseTopicSettings(all, {}).ok());
  std::vector<std::string_view> names;
  for (const auto& [key, value] : all) {
    names.push_back(key);
    CHECK(WrongTopicSetting(key, value) == "");
  }
  CHECK(names == TopicSettingNames());
  CHECK(ErrorOf({{"min.insync.replicas", "2"}}).find("min.insync.replicas: no setting of a topic, ") == 0);
}

TEST_CASE("a topic of an earlier version keeps a bound that may not be set any more") {
  const auto settings = ParseTopicSettings({{"max.message.bytes", "41943040"}}, {});
  REQUIRE(settings.ok());
  CHECK(settings->message_bytes_max == 40 << 20);
}

TEST_CASE("topic names keep to Kafka's rule, and two underscores are the broker's own") {
  for (const std::string good : {"a", "A-z_0.9", "...", "_x", "orders.dlq"}) CHECK(CheckTopicName(good, false).ok());
  CHECK(CheckTopicName(std::string(249, 'x'), false).ok());
  for (const std::string bad : {"", ".", "..", "a b", "a/b", "ä", "a\n"}) {
    CHECK(absl::IsInvalidArgument(CheckTopicName(bad, false)));
  }
  CHECK_FALSE(CheckTopicName(std::string(250, 'x'), false).ok());
  CHECK_FALSE(CheckTopicName("__groups", false).ok());
  CHECK(CheckTopicName("__groups", true).ok());
  CHECK_FALSE(CheckTopicName("groups", true).ok());
}

}  // namespace
}  // namespace sluice::broker
