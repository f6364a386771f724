// The worker over a broker in memory, an API on loopback and real files.
#include "connector/worker.h"

#include <stdlib.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <future>
#include <memory>
#include <sstream>
#include <thread>

#include "client/testing/client_fixture.h"
#include "common/text.h"
#include "connector/http/test_server.h"
#include "runtime/posix_file_system.h"
#include "runtime/system.h"

namespace sluice::connector {
namespace {

namespace fs = std::filesystem;
using http::TestServer;

constexpr char kTwoRecords[] = R"({"records":[{"n":1},{"n":2}]})";

class Api {
 public:
  explicit Api(std::function<std::string(int)> answer)
      : server_([answer = std::move(answer)](int request, const std::string&) { return answer(request); }) {}
  std::string url() const { return server_.Url() + "/"; }
  int requests() const { return server_.requests(); }

 private:
  TestServer server_;
};

struct Lines {
  std::mutex mutex;
  std::string text;
};

// Of a machine on which whatever is timed takes that much longer.
class SlowClock : public Clock {
 public:
  absl::Duration Monotonic() const override { return real_.Monotonic() + slower * ++asked_; }
  absl::Time Wall() const override { return real_.Wall(); }

  absl::Duration slower = absl::ZeroDuration();

 private:
  runtime::SystemClock real_;
  mutable std::atomic<int> asked_{0};
};

class World {
 public:
  World() {
    char path[] = "/tmp/sluice-worker-test-XXXXXX";
    folder_ = mkdtemp(path);
    options_.backoff = {.backoff_first = absl::Milliseconds(5), .backoff_max = absl::Milliseconds(20)};
    options_.long_backoff = options_.backoff;
    options_.connect_wait = absl::Milliseconds(100);
    options_.stop_grace = absl::Milliseconds(100);
    LogOptions log;
    log.write = [lines = lines_](std::string_view line) {
      const std::lock_guard lock(lines->mutex);
      lines->text += line;
    };
    log_ = std::make_unique<Logger>(std::move(log));
  }
  ~World() {
    Stop();
    if (run_.valid()) run_.wait();
    worker_ = nullptr;
    fs::remove_all(folder_);
  }

  World& Add(const std::string& name, const std::string& url, bool once_source = true) {
    PipelineConfig pipeline;
    pipeline.file = name + ".yaml";
    pipeline.name = name;
    pipeline.source.url = url;
    pipeline.source.at = name + ".yaml:4:5: source.http";
    pipeline.source.records = "/records";
    pipeline.source.slices = {{.name = "0", .params = {}}};
    pipeline.source.attempts_max = 1;
    if (!once_source) pipeline.source.every = absl::Hours(1);
    pipeline.topic.name = name;
    NamedSink sink{.name = "raw-0", .config = {}};
    sink.config.to = "file://" + Folder(name);
    sink.config.codec = SinkCodec::kNone;
    sink.config.roll.records = 1;
    pipeline.sinks.push_back(std::move(sink));
    pipelines_.push_back(std::move(pipeline));
    return *this;
  }
  // The last pipeline's source follows links.
  void Paginate() { pipelines_.back().source.pagination = NextUrlPagination{.from = "/next"}; }
  void WithoutSinks() { pipelines_.back().sinks.clear(); }
  void Start(bool once) {
    options_.once = once;
    worker_ = std::make_unique<Worker>(
        std::move(pipelines_), options_,
        Worker::Seams{
            .client = broker.client.get(), .clock = &clock_, .files = &files_, .stop = &stop_, .log = log_.get()});
    run_ = std::async(std::launch::async, [this] { return worker_->Run(); });
  }
  absl::Status Once() {
    Start(true);
    return End();
  }
  absl::Status End() {
    REQUIRE(run_.wait_for(std::chrono::seconds(60)) == std::future_status::ready);
    return run_.get();
  }
  void Stop() { stop_.Stop(); }
  absl::Duration TimeToStop() {
    const absl::Duration from = clock_.Monotonic();
    Stop();
    CHECK(absl::IsCancelled(End()));
    return clock_.Monotonic() - from;
  }
  template <class F>
  void Until(F true_) {
    for (int i = 0; i < 6000 && !true_(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    REQUIRE(true_());
  }

  std::string Folder(const std::string& name) const { return folder_ + "/" + name; }
  std::string Files(const std::string& name) const {
    std::vector<fs::path> paths;
    if (fs::is_directory(Folder(name))) {
      for (const auto& entry : fs::directory_iterator(Folder(name))) paths.push_back(entry.path());
    }
    std::sort(paths.begin(), paths.end());
    std::ostringstream all;
    for (const fs::path& path : paths) all << std::ifstream(path).rdbuf();
    return all.str();
  }
  PipelineStatus Of(const std::string& name) const {
    for (const PipelineStatus& status : worker_->Status()) {
      if (status.name == name) return status;
    }
    FAIL("no pipeline " << name);
    return {};
  }
  std::string Log() const {
    const std::lock_guard lock(lines_->mutex);
    return lines_->text;
  }
  bool ready() const { return worker_->ready(); }
  // Before Start.
  void SlowDown(absl::Duration each) { clock_.slower = each; }

  client::ClientFixture broker;

 private:
  std::string folder_;
  SlowClock clock_;
  runtime::PosixFileSystem files_;
  StopSignal stop_;
  const std::shared_ptr<Lines> lines_ = std::make_shared<Lines>();
  std::unique_ptr<Logger> log_;
  Worker::Options options_;
  std::vector<PipelineConfig> pipelines_;
  std::unique_ptr<Worker> worker_;
  std::future<absl::Status> run_;
};

// Ten pages of three records, and what they hold.
struct Pages {
  static constexpr int kPages = 10;
  static std::string Page(int number, const std::string& next) {
    std::string records;
    for (int i = 0; i < 3; ++i) records += Cat(i == 0 ? "" : ",", R"({"n":)", 3 * number + i, "}");
    const std::string link = number + 1 < kPages ? Cat(",\"next\":\"", next, "?page=", number + 1, "\"") : "";
    return TestServer::Ok(Cat(R"({"records":[)", records, "]", link, "}"));
  }
  static std::vector<std::string> Values() {
    std::vector<std::string> values;
    for (int n = 0; n < 3 * kPages; ++n) values.push_back(Cat(R"({"n":)", n, "}"));
    return values;
  }
  static std::string Lines() {
    std::string lines;
    for (const std::string& value : Values()) lines += value + "\n";
    return lines;
  }
};

// Answers by the page that is asked for, so that a page asked for again is the same.
class PagedApi {
 public:
  PagedApi()
      : server_([this](int, const std::string& request) {
          const size_t at = request.find("page=");
          const int page = at == std::string::npos ? 0 : std::stoi(request.substr(at + 5));
          return Pages::Page(page, url());
        }) {}
  std::string url() const { return server_.Url() + "/"; }

 private:
  TestServer server_;
};

// What leaders do while a worker runs, on a thread of its own.
class Unrest {
 public:
  Unrest(client::ClientFixture& broker, std::function<void(client::FakeBroker&, int)> step, absl::Duration pause)
      : thread_([this, &broker, step = std::move(step), pause] {
          for (int i = 0; !stop_; ++i) {
            broker.On([&] { step(broker.broker, i); });
            std::this_thread::sleep_for(absl::ToChronoNanoseconds(pause));
          }
        }) {}
  ~Unrest() {
    stop_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

void LeadAll(client::FakeBroker& broker, const std::string& address) {
  for (const auto& [partition, log] : broker.logs) {
    if (log.leader != address) broker.Lead(partition, address);
  }
}

std::string Two(int) {
  return TestServer::Ok(kTwoRecords);
}

}  // namespace

TEST_CASE("Once: pulls everything, drains the sinks, ends, and tells what it did") {
  Api api(Two);
  World world;
  world.Add("p", api.url());
  const absl::Status end = world.Once();
  INFO(end);
  REQUIRE(end.ok());
  CHECK(world.broker.Values("p") == std::vector<std::string>{R"({"n":1})", R"({"n":2})"});
  CHECK(world.Files("p") == "{\"n\":1}\n{\"n\":2}\n");
  const PipelineStatus status = world.Of("p");
  CHECK(status.slices.at(0).records == 2);
  CHECK(status.slices.at(0).pages == 1);
  CHECK(status.slices.at(0).pulls == 1);
  CHECK(status.slices.at(0).bytes == 14);
  CHECK(status.sinks.at(0).records == 2);
  CHECK(status.sinks.at(0).files == 1);
  CHECK(status.sinks.at(0).failed == 0);
  const std::string metrics = MetricsText({status});
  CHECK(metrics.find("sluice_connect_source_records_total{pipeline=\"p\",slice=\"0\"} 2\n") != std::string::npos);
  CHECK(metrics.find("sluice_connect_sink_records_total{pipeline=\"p\",sink=\"raw-0\"} 2\n") != std::string::npos);
  CHECK_FALSE(world.ready());
  CHECK(metrics.find("sluice_connect_sink_lag_records{pipeline=\"p\",sink=\"raw-0\"} 0\n") != std::string::npos);
  const PipelineStatus unknown{
      .name = "p", .topic = "p", .slices = {}, .sinks = {PipelineStatus::Part{.name = "raw-0"}}};
  CHECK(MetricsText({unknown}).find("sluice_connect_sink_lag_records{") == std::string::npos);
}

TEST_CASE("A pipeline that fails does not stop the others, and its error is the worker's") {
  Api good(Two), bad([](int) { return TestServer::Status(400, "", "no"); });
  World world;
  world.Add("bad", bad.url()).Add("good", good.url());
  const absl::Status end = world.Once();
  CHECK(absl::IsFailedPrecondition(end));
  CHECK(Message(end).find("pipeline bad, slice 0: bad.yaml:4:5: source.http: ") != std::string_view::npos);
  CHECK(world.Files("good") == "{\"n\":1}\n{\"n\":2}\n");
  CHECK(world.Log().find("the pipeline failed") != std::string::npos);
}

TEST_CASE("A source that fails is tried again until it works") {
  Api api([](int request) { return request < 3 ? TestServer::Status(500) : Two(request); });
  World world;
  world.Add("p", api.url());
  world.Start(false);
  world.Until([&] { return world.Of("p").sinks.at(0).records == 2; });
  CHECK(api.requests() == 4);
  CHECK(world.Log().find("the pull failed") != std::string::npos);
  CHECK(world.ready());
  CHECK(world.TimeToStop() < absl::Seconds(2));
}

TEST_CASE("A sink that fails starts again, says so meanwhile, and goes on when it can") {
  Api api(Two);
  World world;
  const std::string folder = world.Folder("p");
  std::ofstream(folder) << "a file where the folder should be";
  world.Add("p", api.url());
  world.Start(false);
  world.Until([&] { return world.Of("p").sinks.at(0).retries >= 3; });
  CHECK(world.Of("p").sinks.at(0).failed == 1);
  CHECK(world.Of("p").sinks.at(0).records == 0);
  for (int i = 0; i < 50; ++i) {
    REQUIRE(world.Of("p").sinks.at(0).lag >= 2);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  CHECK(world.Log().find("the sink starts again") != std::string::npos);
  fs::remove(folder);
  world.Until([&] { return world.Of("p").sinks.at(0).records == 2; });
  world.Until([&] { return world.Of("p").sinks.at(0).failed == 0; });
  world.Until([&] { return world.Of("p").sinks.at(0).lag == 0; });
  CHECK(world.Files("p") == "{\"n\":1}\n{\"n\":2}\n");
}

TEST_CASE("Once: a sink that fails for good is given up, however long each try takes") {
  Api api(Two);
  World world;
  // Where the file should be written; nothing that the sink would ask for help with.
  fs::create_directories(world.Folder("p") + "/.p-0-00000000000000000000-00000000000000000002.jsonl.tmp/x");
  world.Add("p", api.url());
  world.SlowDown(absl::Seconds(61));
  const absl::Status end = world.Once();
  INFO(end.ToString());
  CHECK(end.ToString().find(".jsonl.tmp") != std::string::npos);
  CHECK(world.Log().find("the sink failed") != std::string::npos);
  // Two passing faults are no reason: a sound try may take as long.
  CHECK(world.Of("p").sinks.at(0).retries == 3);
}

TEST_CASE("Once: what a sink wrote before it failed counts") {
  PagedApi api;
  World world;
  // The topic first, so that the sink gets all of it in one step.
  world.Add("p", api.url());
  world.Paginate();
  world.WithoutSinks();
  REQUIRE(world.Once().ok());
  fs::create_directories(world.Folder("p") + "/.p-0-00000000000000000007-00000000000000000009.jsonl.tmp/x");
  world.Add("p", api.url());
  world.Paginate();
  world.SlowDown(absl::Seconds(5));
  const absl::Status end = world.Once();
  INFO(end.ToString());
  CHECK(end.ToString().find(".jsonl.tmp") != std::string::npos);
  CHECK(world.Of("p").sinks.at(0).records == 6);
  CHECK(world.Of("p").sinks.at(0).files == 2);
}

TEST_CASE("A stop ends a worker that waits for its next pull") {
  Api api(Two);
  World world;
  world.Add("p", api.url(), false);
  world.Start(false);
  world.Until([&] { return world.Of("p").sinks.at(0).records == 2; });
  CHECK(world.TimeToStop() < absl::Seconds(2));
}

TEST_CASE("A stop does not wait for an API that does not answer") {
  Api api([](int) { return std::string("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\na"); });
  World world;
  world.Add("p", api.url());
  world.Start(false);
  world.Until([&] { return api.requests() == 1; });
  CHECK(world.TimeToStop() < absl::Seconds(2));
}

TEST_CASE("A stop does not wait for a broker that has fallen silent, whatever was asked of it") {
  Api api([](int request) { return TestServer::Ok(Cat(R"({"records":[{"n":)", request, R"(}]})")); });
  for (int calls = 0; calls < 24; calls += 3) {
    std::atomic<int> seen{0};
    World world;
    world.Add("p", api.url(), false);
    world.broker.On([&] {
      world.broker.broker.on_call = [&](const std::string&) {
        if (seen++ >= calls) world.broker.broker.silent = true;
      };
    });
    world.Start(false);
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    INFO("silent after " << calls << " calls");
    CHECK(world.TimeToStop() < absl::Seconds(2));
  }
}

TEST_CASE("Leaders that move while a pipeline runs cost no record and repeat none") {
  PagedApi api;
  World world;
  world.Add("p", api.url());
  world.Paginate();
  world.broker.On([&] {
    world.broker.broker.AddNode("b:7400");
    world.broker.broker.AddNode("c:7400");
  });
  const Unrest unrest(
      world.broker,
      [](client::FakeBroker& broker, int step) {
        constexpr const char* kNodes[] = {client::FakeBroker::kAddress, "b:7400", "c:7400"};
        // Half of the time nobody leads.
        LeadAll(broker, step % 2 == 0 ? "" : kNodes[step / 2 % 3]);
      },
      absl::Milliseconds(100));
  const absl::Status end = world.Once();
  INFO(end);
  REQUIRE(end.ok());
  CHECK(world.broker.Values("p") == Pages::Values());
  CHECK(world.Files("p") == Pages::Lines());
}

TEST_CASE("A pipeline waits for a leader for seconds, and goes on where it was") {
  PagedApi api;
  World world;
  world.Add("p", api.url());
  world.Paginate();
  std::atomic<bool> fell{false};
  world.broker.On([&] {
    client::FakeBroker& broker = world.broker.broker;
    broker.AddNode("b:7400");
    broker.on_call = [&](const std::string& method) {
      if (method != "/sluice.v1.Log/Append" || broker.calls[method] < 4 || fell.exchange(true)) return;
      // In the middle of it all: the leader dies, and the next is elected three seconds later.
      broker.Kill(client::FakeBroker::kAddress);
      LeadAll(broker, "");
      world.broker.executor.PostAfter(absl::Seconds(3), [&broker] { LeadAll(broker, "b:7400"); });
    };
    broker.node(client::FakeBroker::kAddress);
  });
  const absl::Status end = world.Once();
  INFO(end);
  REQUIRE(end.ok());
  CHECK(fell);
  CHECK(world.broker.Values("p") == Pages::Values());
  CHECK(world.Files("p") == Pages::Lines());
}

TEST_CASE("A batch whose answer was lost, and that is committed late, is not written a second time") {
  PagedApi api;
  World world;
  world.Add("p", api.url());
  world.Paginate();
  world.broker.On([&] {
    world.broker.broker.stall =
        [&world, seen = std::map<client::TopicPartition, int>()](const client::TopicPartition& partition) mutable {
          if (++seen[partition] % 5 != 2) return false;
          world.broker.executor.PostAfter(
              absl::Milliseconds(400), [&world, partition] { world.broker.broker.logs.at(partition).uncommitted = 0; });
          return true;
        };
  });
  const absl::Status end = world.Once();
  INFO(end);
  REQUIRE(end.ok());
  CHECK(world.broker.Values("p") == Pages::Values());
  CHECK(world.Files("p") == Pages::Lines());
  std::this_thread::sleep_for(std::chrono::milliseconds(250));  // what was written last is committed, too
}

TEST_CASE("A broker that cannot be reached is an error after the time to wait for it") {
  World world;
  world.broker.On([&] { world.broker.broker.reachable = false; });
  world.Add("p", "http://127.0.0.1:1/");
  const absl::Status end = world.Once();
  CHECK(absl::IsUnavailable(end));
}

TEST_CASE("A pipeline whose topic cannot be made fails alone, by name") {
  Api api(Two);
  World world;
  world.Add("bad", api.url()).Add("good", api.url());
  world.broker.On([&] {
    world.broker.broker.refuse_topic = [](const std::string& name) -> std::optional<client::ErrorDetail> {
      if (name != "bad") return std::nullopt;
      client::ErrorDetail detail;
      detail.reason = client::Reason::kInvalidArgument;
      detail.message = "retention.ms: not a number";
      return detail;
    };
  });
  const absl::Status end = world.Once();
  CHECK(absl::IsInvalidArgument(end));
  CHECK(Message(end).find("pipeline bad (bad.yaml), topic bad: retention.ms") != std::string_view::npos);
  CHECK(world.Files("good") == "{\"n\":1}\n{\"n\":2}\n");
}

}  // namespace sluice::connector
