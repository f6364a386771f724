// rdkafka_load: what sluice-load does, through librdkafka, with the same line of JSON at the end. Built by peer.py.
//
//   rdkafka_load produce BROKERS TOPIC RECORDS BYTES RATE [KEY=VALUE...]
//   rdkafka_load consume BROKERS TOPIC RECORDS BYTES 0 [KEY=VALUE...]
#include <librdkafka/rdkafka.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

struct Results {
  std::vector<float> latencies_ms;
  long failed = 0;
};

double Seconds(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

double CpuSeconds() {
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  return static_cast<double>(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
         static_cast<double>(used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6;
}

[[noreturn]] void Die(const std::string& why) {
  std::fprintf(stderr, "rdkafka_load: %s\n", why.c_str());
  std::exit(1);
}

void Set(rd_kafka_conf_t* conf, const std::string& key, const std::string& value) {
  char error[256];
  if (rd_kafka_conf_set(conf, key.c_str(), value.c_str(), error, sizeof(error)) != RD_KAFKA_CONF_OK) Die(error);
}

// The moment that a record counts from travels as its opaque pointer: nanoseconds since `began`.
Clock::time_point began;

void OnDelivered(rd_kafka_t*, const rd_kafka_message_t* message, void* opaque) {
  auto* results = static_cast<Results*>(opaque);
  if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
    ++results->failed;
    return;
  }
  const auto since = began + std::chrono::nanoseconds(reinterpret_cast<intptr_t>(message->_private));
  results->latencies_ms.push_back(static_cast<float>(Seconds(since, Clock::now()) * 1e3));
}

double Percentile(const std::vector<float>& ordered, double share) {
  return ordered.empty() ? 0 : ordered[static_cast<size_t>(share * static_cast<double>(ordered.size() - 1))];
}

int Produce(rd_kafka_conf_t* conf, const char* name, long records, size_t bytes, double rate) {
  Results results;
  results.latencies_ms.reserve(static_cast<size_t>(records));
  rd_kafka_conf_set_opaque(conf, &results);
  rd_kafka_conf_set_dr_msg_cb(conf, OnDelivered);
  char error[256];
  rd_kafka_t* kafka = rd_kafka_new(RD_KAFKA_PRODUCER, conf, error, sizeof(error));
  if (kafka == nullptr) Die(error);
  rd_kafka_topic_t* topic = rd_kafka_topic_new(kafka, name, nullptr);
  const struct rd_kafka_metadata* metadata = nullptr;
  if (rd_kafka_metadata(kafka, 0, topic, &metadata, 30'000) != RD_KAFKA_RESP_ERR_NO_ERROR) Die("no metadata");
  std::string value(bytes, '\0');
  std::minstd_rand random(1);
  for (char& byte : value) byte = static_cast<char>('A' + random() % 26);

  const double cpu_before = CpuSeconds();
  began = Clock::now();
  for (long i = 0; i < records; ++i) {
    auto since = Clock::now() - began;
    if (rate > 0) {
      since = std::chrono::nanoseconds(static_cast<long>(static_cast<double>(i) / rate * 1e9));
      while (began + since - Clock::now() > std::chrono::microseconds(100)) {
        rd_kafka_poll(kafka, 0);
        std::this_thread::sleep_for(std::chrono::microseconds(40));
      }
      while (Clock::now() < began + since) {
      }
    }
    auto* opaque = reinterpret_cast<void*>(std::chrono::duration_cast<std::chrono::nanoseconds>(since).count());
    while (rd_kafka_produce(topic, RD_KAFKA_PARTITION_UA, RD_KAFKA_MSG_F_COPY, value.data(), bytes, nullptr, 0,
                            opaque) != 0) {
      rd_kafka_poll(kafka, 5);
    }
    if (i % 64 == 0) rd_kafka_poll(kafka, 0);
  }
  while (static_cast<long>(results.latencies_ms.size()) + results.failed < records) {
    rd_kafka_poll(kafka, 100);
    if (Seconds(began, Clock::now()) > 300) Die("records without a result after 300 s");
  }
  const double seconds = Seconds(began, Clock::now());
  std::vector<float>& latencies = results.latencies_ms;
  std::sort(latencies.begin(), latencies.end());
  const auto done = static_cast<double>(latencies.size());
  std::printf(
      "{\"records\":%zu,\"failed\":%ld,\"unknown\":0,\"seconds\":%.3f,\"records_per_s\":%.0f,\"mb_per_s\":%.1f,\"p50_"
      "ms\":%.3f,"
      "\"p99_ms\":%.3f,\"p999_ms\":%.3f,\"max_ms\":%.3f,\"client_cpu_s\":%.2f}\n",
      latencies.size(), results.failed, seconds, done / seconds, done * static_cast<double>(bytes) / seconds / 1e6,
      Percentile(latencies, 0.5), Percentile(latencies, 0.99), Percentile(latencies, 0.999), Percentile(latencies, 1),
      CpuSeconds() - cpu_before);
  std::fflush(stdout);
  std::_Exit(results.failed == 0 ? 0 : 1);
}

int Consume(rd_kafka_conf_t* conf, const char* name, long records) {
  Set(conf, "group.id", "bench");
  Set(conf, "enable.auto.commit", "false");
  char error[256];
  rd_kafka_t* kafka = rd_kafka_new(RD_KAFKA_CONSUMER, conf, error, sizeof(error));
  if (kafka == nullptr) Die(error);
  rd_kafka_poll_set_consumer(kafka);
  rd_kafka_topic_t* topic = rd_kafka_topic_new(kafka, name, nullptr);
  const struct rd_kafka_metadata* metadata = nullptr;
  if (rd_kafka_metadata(kafka, 0, topic, &metadata, 30'000) != RD_KAFKA_RESP_ERR_NO_ERROR) Die("no metadata");
  rd_kafka_topic_partition_list_t* all = rd_kafka_topic_partition_list_new(8);
  for (int i = 0; i < metadata->topics[0].partition_cnt; ++i) {
    rd_kafka_topic_partition_list_add(all, name, i)->offset = RD_KAFKA_OFFSET_BEGINNING;
  }
  const double cpu_before = CpuSeconds();
  began = Clock::now();
  rd_kafka_assign(kafka, all);
  rd_kafka_queue_t* queue = rd_kafka_queue_get_consumer(kafka);
  std::vector<rd_kafka_message_t*> messages(2000);
  long got = 0;
  double bytes = 0;
  while (got < records) {
    const ssize_t count = rd_kafka_consume_batch_queue(queue, 500, messages.data(), messages.size());
    for (ssize_t i = 0; i < count; ++i) {
      rd_kafka_message_t* message = messages[static_cast<size_t>(i)];
      if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
        ++got;
        bytes += static_cast<double>(message->len);
      }
      rd_kafka_message_destroy(message);
    }
    if (Seconds(began, Clock::now()) > 300) Die("not all records came within 300 s");
  }
  const double seconds = Seconds(began, Clock::now());
  std::printf("{\"records\":%ld,\"seconds\":%.3f,\"records_per_s\":%.0f,\"mb_per_s\":%.1f,\"client_cpu_s\":%.2f}\n",
              got, seconds, static_cast<double>(got) / seconds, bytes / seconds / 1e6, CpuSeconds() - cpu_before);
  std::fflush(stdout);
  std::_Exit(0);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 7) Die("usage: rdkafka_load produce|consume BROKERS TOPIC RECORDS BYTES RATE [KEY=VALUE...]");
  rd_kafka_conf_t* conf = rd_kafka_conf_new();
  Set(conf, "bootstrap.servers", argv[2]);
  for (int i = 7; i < argc; ++i) {
    const std::string setting = argv[i];
    const size_t equals = setting.find('=');
    if (equals == std::string::npos) Die("not KEY=VALUE: " + setting);
    Set(conf, setting.substr(0, equals), setting.substr(equals + 1));
  }
  if (std::string(argv[1]) == "consume") return Consume(conf, argv[3], std::atol(argv[4]));
  return Produce(conf, argv[3], std::atol(argv[4]), static_cast<size_t>(std::atol(argv[5])), std::atof(argv[6]));
}
