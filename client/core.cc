#include "client/core.h"

#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_join.h"
#include "client/error.h"
#include "client/wire.h"
#include "common/text.h"
#include "sluice/v1/topics.pb.h"

namespace sluice::client {

namespace {

constexpr char kAskedUrl[] = "sluice/asked";

// After the end: answers everything with CANCELLED.
class ClosedChannel : public Channel {
 public:
  explicit ClosedChannel(Executor& executor) : executor_(executor) {}
  const std::string& address() const override { return address_; }
  void Connect(absl::Duration, absl::AnyInvocable<void(absl::Status)> done) override {
    executor_.Post([done = std::move(done)]() mutable { done(Status()); });
  }
  void Call(std::string_view, Bytes, absl::Duration, absl::AnyInvocable<void(absl::StatusOr<Bytes>)> done) override {
    executor_.Post([done = std::move(done)]() mutable { done(Status()); });
  }
  std::unique_ptr<Stream> OpenStream(std::string_view, Stream::Callbacks callbacks) override {
    executor_.Post([on_close = std::move(callbacks.on_close)]() mutable { on_close(Status(), 0); });
    return std::make_unique<ClosedStream>();
  }

 private:
  class ClosedStream : public Stream {
    void Send(Bytes) override {}
    void CloseSend() override {}
  };
  static absl::Status Status() { return absl::CancelledError("the client is closed"); }

  Executor& executor_;
  const std::string address_ = "closed";
};

}  // namespace

struct Core::Attempt {
  std::string method;
  Bytes request;
  absl::Duration deadline;
  Done done;
  size_t tried = 0;
  bool redirected = false;
  std::vector<std::string> failures;
};

Core::Core(ClientOptions options, const ClientSeams& seams) : options_(std::move(options)), seams_(seams) {}

Channel& Core::ChannelTo(const std::string& address) {
  if (closed_ != nullptr) return *closed_;
  std::unique_ptr<Channel>& channel = channels_[address];
  if (channel == nullptr) channel = seams_.channels->Open(address);
  return *channel;
}

void Core::CloseChannels() {
  if (closed_ == nullptr) closed_ = std::make_unique<ClosedChannel>(executor());
  channels_.clear();
  // Who waits for routes may be what keeps this alive, and no answer need come any more.
  for (auto& [topic, waiting] : std::exchange(asking_, {})) {
    for (RoutesDone& each : waiting) each(absl::CancelledError("the client is closed"));
  }
}

void Core::CallAny(std::string_view method, Bytes request, absl::Duration timeout, Done done) {
  auto attempt = std::make_shared<Attempt>();
  attempt->method = std::string(method);
  attempt->request = std::move(request);
  attempt->deadline = clock().Monotonic() + timeout;
  attempt->done = std::move(done);
  TryNext(attempt);
}

void Core::TryNext(const std::shared_ptr<Attempt>& attempt) {
  const absl::Duration left = attempt->deadline - clock().Monotonic();
  if (attempt->tried == options_.brokers.size() || left <= absl::ZeroDuration()) {
    return attempt->done(
        absl::UnavailableError(Cat("no broker can be reached: ", absl::StrJoin(attempt->failures, "; "),
                                   ". Is sluiced running, and is the list of brokers right?")));
  }
  const size_t index = (preferred_ + attempt->tried++) % options_.brokers.size();
  const std::string& address = options_.brokers[index];
  ChannelTo(address).Connect(std::min(left, options_.connect_timeout),
                             [self = shared_from_this(), attempt, index, &address](const absl::Status& status) {
                               if (!status.ok()) {
                                 attempt->failures.emplace_back(status.message());
                                 return self->TryNext(attempt);
                               }
                               self->preferred_ = index;
                               self->Ask(attempt, address);
                             });
}

void Core::Ask(const std::shared_ptr<Attempt>& attempt, const std::string& address) {
  const absl::Duration left = attempt->deadline - clock().Monotonic();
  ChannelTo(address).Call(
      attempt->method, attempt->request, left, [self = shared_from_this(), attempt](absl::StatusOr<Bytes> answer) {
        if (!answer.ok() && !attempt->redirected) {
          std::optional<ErrorDetail> detail = GetErrorDetail(answer.status());
          if (detail.has_value() && detail->reason == Reason::kNotLeader && !detail->leader.empty()) {
            attempt->redirected = true;
            return self->Ask(attempt, detail->leader);
          }
        }
        if (!answer.ok() && !GetErrorDetail(answer.status()).has_value()) {
          absl::Status asked = answer.status();
          asked.SetPayload(kAskedUrl, absl::Cord("yes"));
          answer = std::move(asked);
        }
        attempt->done(std::move(answer));
      });
}

void Core::CallAt(const std::string& address, std::string_view method, Bytes request, absl::Duration timeout,
                  Done done) {
  ChannelTo(address).Call(method, std::move(request), timeout, std::move(done));
}

void Core::FindTopic(const std::string& topic, absl::Duration timeout, RoutesDone done) {
  if (auto known = routes_.find(topic); known != routes_.end()) return done(known->second);
  std::vector<RoutesDone>& waiting = asking_[topic];
  waiting.push_back(std::move(done));
  if (waiting.size() > 1) return;
  v1::DescribeTopicRequest request;
  request.set_name(topic);
  CallAny("/sluice.v1.Topics/Describe", Serialize(request), timeout,
          [self = shared_from_this(), topic](absl::StatusOr<Bytes> answer) {
            absl::StatusOr<std::shared_ptr<const TopicRoutes>> result = absl::UnknownError("no answer");
            if (!answer.ok()) result = answer.status();
            if (answer.ok()) {
              absl::StatusOr<v1::DescribeTopicResponse> response = ParseAs<v1::DescribeTopicResponse>(*answer);
              if (response.ok()) {
                auto routes = std::make_shared<TopicRoutes>();
                routes->leaders.resize(
                    static_cast<size_t>(std::max(response->topic().partitions(), response->partitions_size())));
                for (const v1::PartitionInfo& partition : response->partitions()) {
                  const auto at = static_cast<size_t>(partition.partition());
                  if (at < routes->leaders.size()) routes->leaders[at] = partition.leader();
                }
                result = routes;
                self->routes_[topic] = routes;
              } else {
                result = response.status();
              }
            }
            std::vector<RoutesDone> all = std::move(self->asking_[topic]);
            self->asking_.erase(topic);
            for (RoutesDone& each : all) each(result);
          });
}

void Core::ForgetTopic(const std::string& topic) {
  routes_.erase(topic);
}

bool WasAsked(const absl::Status& status) {
  return status.GetPayload(kAskedUrl).has_value();
}

absl::StatusOr<std::string> LeaderOf(const TopicRoutes& routes, std::string_view topic, int32_t partition) {
  ErrorDetail detail;
  detail.topic = std::string(topic);
  detail.partition = partition;
  if (partition < 0 || static_cast<size_t>(partition) >= routes.leaders.size()) {
    detail.reason = Reason::kUnknownTopic;
    detail.message =
        Cat("topic ", topic, " has no partition ", partition, ": it has ", routes.leaders.size(), ", numbered from 0");
    return MakeError(detail);
  }
  const std::string& leader = routes.leaders[static_cast<size_t>(partition)];
  if (!leader.empty()) return leader;
  detail.reason = Reason::kNotAvailable;
  detail.retriable = true;
  detail.message = Cat("partition ", topic, "/", partition, " has no leader at the moment");
  return MakeError(detail);
}

}  // namespace sluice::client
