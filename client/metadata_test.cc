// What a client knows of leaders, with the questions answered by hand, on a clock of the test's own.
#include "client/metadata.h"

#include <catch2/catch.hpp>
#include <map>
#include <utility>

#include "client/error.h"

namespace sluice::client {
namespace {

// Runs what is posted when told to; time passes only by Run.
class ManualExecutor final : public Executor, public Clock {
 public:
  void Post(Task task) override { PostAfter(absl::ZeroDuration(), std::move(task)); }
  TimerId PostAfter(absl::Duration delay, Task task) override {
    timers_.emplace(std::make_pair(now_ + std::max(delay, absl::ZeroDuration()), ++last_), std::move(task));
    return last_;
  }
  void Cancel(TimerId timer) override {
    std::erase_if(timers_, [&](const auto& each) { return each.first.second == timer; });
  }
  bool IsCurrent() const override { return true; }
  absl::Duration Monotonic() const override { return now_; }
  absl::Time Wall() const override { return absl::UnixEpoch() + now_; }

  void Run(absl::Duration time) {
    const absl::Duration until = now_ + time;
    while (!timers_.empty() && timers_.begin()->first.first <= until) {
      now_ = timers_.begin()->first.first;
      Task task = std::move(timers_.begin()->second);
      timers_.erase(timers_.begin());
      task();
    }
    now_ = until;
  }

 private:
  absl::Duration now_ = absl::Seconds(1000);
  TimerId last_ = 0;
  std::map<std::pair<absl::Duration, TimerId>, Task> timers_;
};

struct MetadataFixture {
  MetadataFixture() {
    metadata = std::make_shared<Metadata>(
        executor, executor, Metadata::Options(),
        [this](const std::string&, absl::Duration, Metadata::Done done) { questions.push_back(std::move(done)); });
  }
  static Metadata::Routes Said(std::vector<std::pair<std::string, int>> leaders, uint64_t id = 1) {
    auto routes = std::make_shared<TopicRoutes>();
    routes->id = Uuid::FromRandom(id, id);
    for (auto& [leader, epoch] : leaders) routes->partitions.push_back({leader, LeaderEpoch(epoch)});
    return routes;
  }
  void Answer(absl::StatusOr<Metadata::Routes> answer) {
    REQUIRE_FALSE(questions.empty());
    Metadata::Done done = std::move(questions.back());
    questions.pop_back();
    done(std::move(answer));
  }
  void Know(std::vector<std::pair<std::string, int>> leaders) {
    metadata->Refresh("t", metadata->last_question(), absl::Seconds(5), [](const absl::StatusOr<Metadata::Routes>&) {});
    executor.Run(absl::Seconds(1));
    Answer(Said(std::move(leaders)));
  }
  std::string Leader(size_t partition = 0) { return metadata->Known("t")->partitions[partition].leader; }

  ManualExecutor executor;
  std::vector<Metadata::Done> questions;
  std::shared_ptr<Metadata> metadata;
};

}  // namespace

TEST_CASE_METHOD(MetadataFixture, "Many who ask at once share one question, and each its answer") {
  int answered = 0;
  for (int i = 0; i < 5; ++i) {
    metadata->Find("t", absl::Seconds(5), [&](const absl::StatusOr<Metadata::Routes>& routes) {
      REQUIRE(routes.ok());
      CHECK((*routes)->partitions[0].leader == "a:1");
      ++answered;
    });
  }
  REQUIRE(questions.size() == 1);
  Answer(Said({{"a:1", 1}}));
  CHECK(answered == 5);
  metadata->Find("t", absl::Seconds(5), [&](const absl::StatusOr<Metadata::Routes>&) { ++answered; });
  CHECK(answered == 6);
  CHECK(questions.empty());
}

TEST_CASE_METHOD(MetadataFixture, "However often it is asked again, the rate of questions has a bound") {
  int asked = 0;
  Know({{"", 0}});
  for (int i = 0; i < 10000; ++i) {
    metadata->Refresh("t", metadata->last_question(), absl::Seconds(60),
                      [](const absl::StatusOr<Metadata::Routes>&) {});
    executor.Run(absl::Milliseconds(1));
    if (questions.empty()) continue;
    Answer(Said({{"", 0}}));
    ++asked;
  }
  CHECK(asked >= 30);
  CHECK(asked <= 60);
}

TEST_CASE_METHOD(MetadataFixture, "Who waits is answered by the end of its own time, however long the question takes") {
  absl::Status brief, patient;
  metadata->Find("t", absl::Seconds(1), [&](const absl::StatusOr<Metadata::Routes>& r) { brief = r.status(); });
  metadata->Find("t", absl::Seconds(9), [&](const absl::StatusOr<Metadata::Routes>& r) { patient = r.status(); });
  executor.Run(absl::Seconds(2));
  CHECK(absl::IsDeadlineExceeded(brief));
  CHECK(patient.ok());
  Answer(absl::UnavailableError("nobody there"));
  CHECK(absl::IsUnavailable(patient));
}

TEST_CASE_METHOD(MetadataFixture,
                 "A question that was under way when a leader failed does not answer for what is now") {
  metadata->Find("t", absl::Seconds(60), [](const absl::StatusOr<Metadata::Routes>&) {});
  bool answered = false;
  metadata->Refresh("t", metadata->last_question(), absl::Seconds(60),
                    [&](const absl::StatusOr<Metadata::Routes>&) { answered = true; });
  Answer(Said({{"a:1", 1}}));
  CHECK_FALSE(answered);
  executor.Run(absl::Seconds(1));
  Answer(Said({{"b:1", 2}}));
  CHECK(answered);
  CHECK(Leader() == "b:1");
}

TEST_CASE_METHOD(MetadataFixture, "A hint is followed, a second too, and then the cluster is asked: no circle") {
  Know({{"a:1", 1}});
  CHECK(metadata->Follow("t", 0, "a:1", "b:1"));
  CHECK(Leader() == "b:1");
  CHECK(metadata->Follow("t", 0, "b:1", "a:1"));
  CHECK_FALSE(metadata->Follow("t", 0, "a:1", "b:1"));
  Know({{"a:1", 1}});
  CHECK(Leader() == "a:1");
  CHECK(metadata->Follow("t", 0, "a:1", "b:1"));
}

TEST_CASE_METHOD(MetadataFixture, "A hint that names the refuser, or nobody, is none") {
  Know({{"a:1", 1}});
  CHECK_FALSE(metadata->Follow("t", 0, "a:1", ""));
  CHECK_FALSE(metadata->Follow("t", 0, "a:1", "a:1"));
  CHECK_FALSE(metadata->Follow("t", 7, "a:1", "b:1"));
  CHECK_FALSE(metadata->Follow("other", 0, "a:1", "b:1"));
}

TEST_CASE_METHOD(MetadataFixture, "Who was refused by a leader that others found wrong before takes what they found") {
  Know({{"a:1", 1}});
  REQUIRE(metadata->Follow("t", 0, "a:1", "b:1"));
  CHECK(metadata->Follow("t", 0, "a:1", "c:1"));
  CHECK(Leader() == "b:1");
}

TEST_CASE_METHOD(MetadataFixture, "An answer of an earlier epoch does not replace a leader, unless that one failed") {
  Know({{"a:1", 5}, {"a:1", 5}});
  Know({{"b:1", 4}, {"", 0}});
  CHECK(Leader(0) == "a:1");
  CHECK(Leader(1) == "a:1");
  metadata->Failed("t", 0, "a:1");
  Know({{"b:1", 4}, {"c:1", 6}});
  CHECK(Leader(0) == "b:1");
  CHECK(Leader(1) == "c:1");
}

TEST_CASE_METHOD(MetadataFixture, "A topic that was made again has epochs of its own") {
  Know({{"a:1", 5}});
  metadata->Refresh("t", metadata->last_question(), absl::Seconds(5), [](const absl::StatusOr<Metadata::Routes>&) {});
  executor.Run(absl::Seconds(1));
  Answer(Said({{"b:1", 1}}, /*id=*/2));
  CHECK(Leader() == "b:1");
}

TEST_CASE_METHOD(MetadataFixture, "What grew old still counts while it is asked for again") {
  Know({{"a:1", 1}});
  executor.Run(absl::Minutes(6));
  bool found = false;
  metadata->Find("t", absl::Seconds(5), [&](const absl::StatusOr<Metadata::Routes>& r) { found = r.ok(); });
  CHECK(found);
  Answer(Said({{"b:1", 2}}));
  CHECK(Leader() == "b:1");
}

TEST_CASE_METHOD(MetadataFixture, "A topic that nobody knows any more is forgotten, and closing answers all") {
  Know({{"a:1", 1}});
  metadata->Refresh("t", metadata->last_question(), absl::Seconds(5), [](const absl::StatusOr<Metadata::Routes>&) {});
  executor.Run(absl::Seconds(1));
  ErrorDetail gone;
  gone.reason = Reason::kUnknownTopic;
  Answer(MakeError(gone));
  CHECK(metadata->Known("t") == nullptr);
  absl::Status status;
  metadata->Find("t", absl::Seconds(5), [&](const absl::StatusOr<Metadata::Routes>& r) { status = r.status(); });
  metadata->Close();
  CHECK(absl::IsCancelled(status));
  status = absl::OkStatus();
  metadata->Find("t", absl::Seconds(5), [&](const absl::StatusOr<Metadata::Routes>& r) { status = r.status(); });
  CHECK(absl::IsCancelled(status));
}

}  // namespace sluice::client
