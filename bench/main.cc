// sluice-bench: what this machine and this build give, in one run. The broker runs as a process of its own; beside it a
// bare gRPC server gets the same messages from the same client, so that ratios hold where absolute figures do not.
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "bench/disk_bench.h"
#include "bench/idle_groups_bench.h"
#include "bench/journal_bench.h"
#include "bench/record_bench.h"
#include "bench/stream_load.h"
#include "common/record/record.h"
#include "runtime/system.h"
#include "sluice/v1/log.pb.h"
#include "sluice/v1/topics.pb.h"

namespace sluice::bench {
namespace {

constexpr int kWindow = 16;
constexpr size_t kBatchBytes = 256 << 10;

std::string BesideMe(const std::string& name) {
  return (std::filesystem::read_symlink("/proc/self/exe").parent_path() / name).string();
}

// A child process; killed at the end.
class Child {
 public:
  // The first line that it prints goes to `line`, when that is asked for; the rest of its output is dropped.
  Child(const std::vector<std::string>& arguments, std::string* line) {
    int out[2];
    if (pipe(out) != 0) return;
    pid_ = fork();
    if (pid_ == 0) {
      dup2(out[1], line != nullptr ? 1 : 2);
      std::vector<char*> argv;
      for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
      argv.push_back(nullptr);
      execv(argv[0], argv.data());
      _exit(127);
    }
    close(out[1]);
    if (line != nullptr) {
      char byte = 0;
      while (read(out[0], &byte, 1) == 1 && byte != '\n') line->push_back(byte);
      close(out[0]);
    } else {
      drain_ = std::thread([from = out[0]] {
        char bytes[4096];
        while (read(from, bytes, sizeof(bytes)) > 0) {
        }
        close(from);
      });
    }
  }
  ~Child() {
    kill(pid_, SIGTERM);
    waitpid(pid_, nullptr, 0);
    if (drain_.joinable()) drain_.join();
  }
  double CpuSeconds() const {
    std::ifstream file("/proc/" + std::to_string(pid_) + "/stat");
    std::string text;
    std::getline(file, text);
    std::istringstream fields(text.substr(text.rfind(')') + 2));
    std::string skipped;
    for (int i = 0; i < 11; ++i) fields >> skipped;
    double user = 0;
    double kernel = 0;
    fields >> user >> kernel;
    return (user + kernel) / static_cast<double>(sysconf(_SC_CLK_TCK));
  }
  double ResidentMegabytes() const {
    std::ifstream file("/proc/" + std::to_string(pid_) + "/statm");
    double pages = 0;
    double resident = 0;
    file >> pages >> resident;
    return resident * static_cast<double>(sysconf(_SC_PAGESIZE)) / 1e6;
  }

 private:
  pid_t pid_ = -1;
  std::thread drain_;
};

double Percentile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<size_t>(share * static_cast<double>(values.size())))];
}

// A serialized ProduceRequest of one batch.
std::string RequestOf(const std::string& topic, size_t record_bytes, size_t batch_bytes, int* records) {
  record::BatchBuilder builder;
  std::string value(record_bytes, ' ');
  uint32_t state = 1;
  const int64_t now_ms = absl::ToUnixMillis(absl::Now());  // retention would take away what is older
  while (builder.size_bytes() + record_bytes < batch_bytes || builder.empty()) {
    for (char& byte : value) byte = static_cast<char>((state = state * 1664525 + 1013904223) >> 24);
    if (!builder.Append(now_ms, std::nullopt, value).ok()) break;
  }
  *records = builder.record_count();
  v1::ProduceRequest request;
  v1::ProduceItem& item = *request.add_items();
  item.set_topic(topic);
  item.set_batch(std::string(builder.Build()->bytes()));
  return request.SerializeAsString();
}

bool Acknowledged(const std::string& answer) {
  v1::ProduceResponse response;
  return response.ParseFromString(answer) && response.results_size() == 1 && !response.results(0).has_error();
}

class Bench {
 public:
  Bench(bool quick, std::string dir)
      : each_(absl::Seconds(quick ? 1 : 4)), pairs_(quick ? 1 : 3), dir_(std::move(dir)) {}

  bool Run() {
    if (!StartServers()) return false;
    std::printf("\nProduce over gRPC, synced before the answer, %d requests in flight, batches of %zu KiB\n", kWindow,
                kBatchBytes >> 10);
    std::printf("  %-10s %12s %10s %10s %10s %10s %12s %12s\n", "records", "records/s", "MB/s", "bare MB/s", "of bare",
                "of disk", "CPU s/mill.", "bare CPU s");
    const bool good = Produce("kilo", 1000) && Produce("hecto", 100);
    return good && Consume("kilo", 1000) && Consume("hecto", 100) && Latency();
  }
  // One case alone, for a profiler or a comparison of two builds.
  bool RunProduce() {
    if (!StartServers() || !Produce("kilo", 1000)) return false;
    PrintDiskBench(std::cout, dir_, each_ / 2);
    return true;
  }
  bool RunLatency() { return StartServers() && Latency(); }
  // What a full run asks before the latency, without what does not bear on it.
  bool RunLatencyAfterLoad() { return StartServers() && Produce("kilo", 1000) && Latency() && Latency(); }

 private:
  bool StartServers();
  bool Create(const std::string& topic);
  bool Produce(const std::string& topic, size_t record_bytes);
  bool Consume(const std::string& topic, int64_t record_bytes);
  bool Latency();
  template <class T>
  bool Check(const absl::StatusOr<T>& result) {
    if (!result.ok()) std::cout << "failed: " << result.status() << "\n";
    return result.ok();
  }

  const absl::Duration each_;
  const int pairs_;
  const std::string dir_;
  std::unique_ptr<Child> broker_;
  std::unique_ptr<Child> bare_;
  std::unique_ptr<StreamClient> to_broker_;
  std::unique_ptr<StreamClient> to_bare_;
};

bool Bench::StartServers() {
  std::string port;
  bare_ = std::make_unique<Child>(std::vector<std::string>{"/proc/self/exe", "--bare-server"}, &port);
  to_bare_ = StreamClient::Connect("127.0.0.1:" + port);
  // A port that was free a moment ago; the broker is told it, because it prints none.
  const std::string address = "127.0.0.1:" + std::to_string(20'000 + getpid() % 10'000);
  const auto begin = std::chrono::steady_clock::now();
  broker_ = std::make_unique<Child>(
      std::vector<std::string>{BesideMe("sluiced"), "--set", "node.data_dir=" + dir_ + "/broker", "--set",
                               "listen.grpc=" + address, "--set", "listen.http=127.0.0.1:0", "--set",
                               "listen.peer=127.0.0.1:0", "--set", "limits.inflight_bytes=64MiB", "--set",
                               "storage.disk_low_watermark=16MiB", "--set", "storage.disk_high_watermark=32MiB"},
      nullptr);
  to_broker_ = StreamClient::Connect(address);
  if (!Create("kilo")) return false;
  const std::chrono::duration<double> start = std::chrono::steady_clock::now() - begin;
  std::this_thread::sleep_for(std::chrono::seconds(1));
  std::printf("\nStart of a new node to its first answer: %.0f ms; idle memory: %.1f MB\n", 1000 * start.count(),
              broker_->ResidentMegabytes());
  return Create("hecto") && Create("paced");
}

bool Bench::Create(const std::string& topic) {
  v1::CreateTopicRequest request;
  request.set_name(topic);
  (*request.mutable_config())["retention.bytes"] = "268435456";
  return Check(to_broker_->Call("/sluice.v1.Topics/Create", request.SerializeAsString(), absl::Seconds(10)));
}

bool Bench::Produce(const std::string& topic, size_t record_bytes) {
  int records = 0;
  const std::string request = RequestOf(topic, record_bytes, kBatchBytes, &records);
  std::vector<double> rates, ratios, cpu, bare_cpu, bare_rates, of_disk;
  for (int pair = 0; pair < pairs_; ++pair) {
    double before = bare_->CpuSeconds();
    const auto bare = to_bare_->Send("/bare/Sink", request, kWindow, each_, [](const std::string&) { return true; });
    if (!Check(bare)) return false;
    bare_cpu.push_back((bare_->CpuSeconds() - before) / static_cast<double>(bare->messages * records) * 1e6);
    before = broker_->CpuSeconds();
    const auto mine = to_broker_->Send("/sluice.v1.Log/Produce", request, kWindow, each_, Acknowledged);
    if (!Check(mine)) return false;
    cpu.push_back((broker_->CpuSeconds() - before) / static_cast<double>(mine->messages * records) * 1e6);
    rates.push_back(static_cast<double>(mine->messages) / mine->seconds);
    bare_rates.push_back(static_cast<double>(bare->messages) / bare->seconds);
    ratios.push_back(rates.back() / bare_rates.back());
    const auto disk = MeasureDisk(dir_, each_ / 4);
    if (!Check(disk)) return false;
    of_disk.push_back(rates.back() * static_cast<double>(request.size()) / 1e6 / disk->twice);
  }
  const double rate = Percentile(rates, 0.5);
  const double megabytes = static_cast<double>(request.size()) / 1e6;
  std::printf("  %-10s %12.0f %10.0f %10.0f %9.0f%% %9.0f%% %12.2f %12.2f\n",
              (std::to_string(record_bytes) + " B").c_str(), rate * records, rate * megabytes,
              Percentile(bare_rates, 0.5) * megabytes, 100 * Percentile(ratios, 0.5), 100 * Percentile(of_disk, 0.5),
              Percentile(cpu, 0.5), Percentile(bare_cpu, 0.5));
  return true;
}

bool Bench::Consume(const std::string& topic, int64_t record_bytes) {
  v1::ListOffsetsRequest ask;
  v1::ListOffsetsResponse told;
  ask.add_items()->set_topic(topic);
  ask.mutable_items(0)->set_kind(v1::ListOffsetsItem::EARLIEST);
  *ask.add_items() = ask.items(0);
  ask.mutable_items(1)->set_kind(v1::ListOffsetsItem::LATEST);
  const auto answer = to_broker_->Call("/sluice.v1.Log/ListOffsets", ask.SerializeAsString(), absl::Seconds(10));
  if (!Check(answer) || !told.ParseFromString(*answer)) return false;
  // What lies behind the start is in files, the last of it in memory as well: 256 batches of either, or, of what a slow
  // disk took in the time, half.
  const int64_t there = (told.results(1).offset() - told.results(0).offset()) * record_bytes;
  const int64_t take = std::min<int64_t>(64 << 20, there / 2);
  const int64_t hot_from =
      std::max(told.results(0).offset(), told.results(1).offset() - (take + (8 << 20)) / record_bytes);
  std::printf("\nConsume over gRPC, records of %lld B, answers of 1 MiB\n  %-16s %10s %14s\n",
              static_cast<long long>(record_bytes), "from", "MB/s", "CPU s/GB");
  const auto read = [&](const char* name, Child& child, StreamClient& client, const std::string& method,
                        const std::string& request, const std::string& refill) {
    const double before = child.CpuSeconds();
    const auto result = client.Receive(method, request, refill, 32 << 20, take);
    if (!Check(result)) return false;
    const double gigabytes = static_cast<double>(result->bytes) / 1e9;
    std::printf("  %-16s %10.0f %14.2f\n", name, gigabytes * 1000 / result->seconds,
                (child.CpuSeconds() - before) / gigabytes);
    return true;
  };
  v1::ConsumeRequest request;
  request.set_credit_bytes(32 << 20);
  request.set_max_bytes(1 << 20);
  request.add_assign()->set_topic(topic);
  v1::ConsumeRequest refill;
  refill.set_credit_bytes(16 << 20);
  for (const auto& [name, offset] : {std::pair("earliest", told.results(0).offset()), std::pair("latest", hot_from)}) {
    request.mutable_assign(0)->set_offset(offset);
    if (!read(name, *broker_, *to_broker_, "/sluice.v1.Log/Consume", request.SerializeAsString(),
              refill.SerializeAsString())) {
      return false;
    }
  }
  return read("bare gRPC", *bare_, *to_bare_, "/bare/Source", "go", "on");
}

bool Bench::Latency() {
  int records = 0;
  const std::string request = RequestOf("paced", 1000, 25 * 1024, &records);
  const absl::Duration interval = absl::Seconds(1) * records / 5000.0;
  std::printf(
      "\nOpen loop, 5,000 records/s of 1 KB in batches of %d, from when each should have left\n"
      "  %-30s %8s %8s %8s %14s %12s\n",
      records, "to", "p50 ms", "p99 ms", "p99.9 ms", "sent late p50", "of a core");
  const auto run = [&](const char* name, Child& child, StreamClient& client, const std::string& method,
                       absl::Duration time, const std::function<bool(const std::string&)>& check) {
    const double before = child.CpuSeconds();
    const auto result = client.SendPaced(method, request, interval, time, check);
    if (!Check(result)) return false;
    const auto& times = result->latencies_ms;
    std::printf("  %-30s %8.2f %8.2f %8.2f %14.2f %11.1f%%\n", name, Percentile(times, 0.5), Percentile(times, 0.99),
                Percentile(times, 0.999), Percentile(result->late_ms, 0.5),
                100 * (child.CpuSeconds() - before) / result->seconds);
    return true;
  };
  if (!run("the broker, synced first", *broker_, *to_broker_, "/sluice.v1.Log/Produce", 3 * each_, Acknowledged) ||
      !run("a server that drops them", *bare_, *to_bare_, "/bare/Sink", each_,
           [](const std::string&) { return true; })) {
    return false;
  }
  std::printf("Memory of the broker after the load: %.1f MB\n", broker_->ResidentMegabytes());
  return true;
}

int Main(int argc, char** argv) {
  runtime::TuneMalloc();
  bool quick = false;
  bool bare = false;
  std::string only;
  std::string parent = "/var/tmp";
  CLI::App app("sluice-bench: what this build gives on this machine");
  app.add_flag("--quick", quick, "one short pass");
  app.add_option("--only", only, "one case: produce, latency, both as aged, disk, or idle-groups")
      ->check(CLI::IsMember({"produce", "latency", "aged", "disk", "idle-groups"}));
  app.add_option("--dir", parent, "where to work: a folder on the disk to be measured");
  app.add_flag("--bare-server", bare)->group("");
  CLI11_PARSE(app, argc, argv);
  if (bare) return RunBareServer(1 << 20);
  signal(SIGPIPE, SIG_IGN);
  std::string dir = parent + "/sluice-bench-XXXXXX";
  if (mkdtemp(dir.data()) == nullptr) {
    std::cerr << "sluice-bench: cannot make a folder in " << parent << "\n";
    return 1;
  }
  const absl::Duration each = quick ? absl::Milliseconds(300) : absl::Seconds(2);
  std::cout.setf(std::ios::unitbuf);
  setvbuf(stdout, nullptr, _IOLBF, 0);
  Bench bench(quick, dir);
  bool good = false;
  if (only == "produce") {
    good = bench.RunProduce();
  } else if (only == "latency") {
    good = bench.RunLatency();
  } else if (only == "aged") {
    good = bench.RunLatencyAfterLoad();
  } else if (only == "disk") {
    PrintDiskBench(std::cout, dir, each);
    PrintJournalBench(std::cout, dir, each / 3);
    good = true;
  } else if (only == "idle-groups") {
    good = PrintIdleGroupsBench(std::cout, dir, 5 * each);
  } else {
    PrintRecordBench(std::cout, each / 4);
    PrintJournalBench(std::cout, dir, each);
    PrintDiskBench(std::cout, dir, each);
    good = bench.Run();
  }
  std::error_code ignored;
  std::filesystem::remove_all(dir, ignored);
  return good ? 0 : 1;
}

}  // namespace
}  // namespace sluice::bench

int main(int argc, char** argv) {
  return sluice::bench::Main(argc, argv);
}
