#include "client/core.h"

#include <algorithm>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_join.h"
#include "client/error.h"
#include "client/wire.h"
#include "common/text.h"
#include "sluice/v1/cluster.pb.h"
#include "sluice/v1/topics.pb.h"

namespace sluice::client {

namespace {

// Most elections after a broker's death are over by then.
constexpr absl::Duration kElectionTakes = absl::Seconds(1);

constexpr char kAskedUrl[] = "sluice/asked";
// Where there are others to try, none keeps the rest waiting for longer: to connect, and to answer a question.
constexpr absl::Duration kConnectShort = absl::Seconds(1);
constexpr absl::Duration kAnswerShort = absl::Seconds(5);
constexpr absl::Duration kRoundBackoffMin = absl::Milliseconds(50);
constexpr absl::Duration kRoundBackoffMax = absl::Milliseconds(500);
constexpr int kRedirectsMax = 3;  // in one round
// Addresses beside those configured.
constexpr size_t kHeardMax = 64;

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
    void Send(std::vector<Bytes>) override {}
    void CloseSend() override {}
  };
  static absl::Status Status() { return absl::CancelledError("the client is closed"); }

  Executor& executor_;
  const std::string address_ = "closed";
};

}  // namespace

struct Core::Attempt {
  Kind kind;
  std::string method;
  Bytes request;
  absl::Duration deadline;
  Done done;
  std::vector<std::string> candidates;  // of this round
  size_t tried = 0;
  int redirects = 0;
  int rounds = 0;
  bool cut_short = false;             // a broker of this round might have been reached with more time
  bool patient = false;               // rounds give each all the time there is
  std::vector<std::string> failures;  // to reach a broker, in this round
  absl::Status refusal;               // of the last that did nothing but may later; OK: none in this round
  absl::Status earlier_refusal;       // of an earlier round
  absl::Status absence;               // of the last that knows no such topic
  absl::Status silence;               // of the last question that got no answer
};

Core::Core(ClientOptions options, const ClientSeams& seams)
    : options_(std::move(options)), seams_(seams), brokers_(options_.brokers) {}

std::shared_ptr<Core> Core::Make(ClientOptions options, const ClientSeams& seams) {
  std::shared_ptr<Core> core(new Core(std::move(options), seams));
  Metadata::Options metadata;
  metadata.age_max = core->options_.metadata_age_max;
  metadata.timeout = core->options_.timeout;
  core->metadata_ = std::make_shared<Metadata>(
      core->executor(), core->clock(), metadata,
      [raw = core.get()](const std::string& topic, absl::Duration timeout, Metadata::Done done) {
        raw->DescribeTopic(topic, timeout, std::move(done));
      });
  return core;
}

Core::~Core() {
  metadata_->Close();
}

Channel& Core::ChannelTo(const std::string& address) {
  if (closed_ != nullptr) return *closed_;
  std::unique_ptr<Channel>& channel = channels_[address];
  if (channel == nullptr) channel = seams_.channels->Open(address);
  return *channel;
}

void Core::CloseChannels() {
  if (closed_ == nullptr) closed_ = std::make_unique<ClosedChannel>(executor());
  channels_.clear();
  metadata_->Close();
}

void Core::CallAny(Kind kind, std::string_view method, Bytes request, absl::Duration timeout, Done done) {
  auto attempt = std::make_shared<Attempt>();
  attempt->kind = kind;
  attempt->method = std::string(method);
  attempt->request = std::move(request);
  attempt->deadline = clock().Monotonic() + timeout;
  attempt->done = std::move(done);
  StartRound(attempt);
}

void Core::StartRound(const std::shared_ptr<Attempt>& attempt) {
  attempt->candidates = brokers_;
  const auto preferred = std::find(attempt->candidates.begin(), attempt->candidates.end(), preferred_);
  if (preferred != attempt->candidates.end()) {
    std::rotate(attempt->candidates.begin(), preferred, preferred + 1);
  }
  attempt->tried = 0;
  attempt->redirects = 0;
  ++attempt->rounds;
  attempt->cut_short = false;
  attempt->failures.clear();
  if (!attempt->refusal.ok()) attempt->earlier_refusal = std::exchange(attempt->refusal, absl::OkStatus());
  attempt->silence = absl::OkStatus();
  TryNext(attempt);
}

void Core::TryNext(const std::shared_ptr<Attempt>& attempt) {
  const bool late = attempt->deadline <= clock().Monotonic();
  if (late || closed() || attempt->tried == attempt->candidates.size()) return EndRound(attempt);
  Reach(attempt, attempt->candidates[attempt->tried++]);
}

// All were tried, or the time is over.
void Core::EndRound(const std::shared_ptr<Attempt>& attempt) {
  const absl::Duration left = attempt->deadline - clock().Monotonic();
  if (closed()) return attempt->done(absl::CancelledError("the client is closed"));
  // That a topic is unknown is believed once nobody who can be asked knows it.
  if (!attempt->absence.ok()) return attempt->done(attempt->absence);
  const absl::Duration pause =
      std::min(kRoundBackoffMax, kRoundBackoffMin * (1 << std::clamp(attempt->rounds - 1, 0, 10)));
  if (!attempt->refusal.ok()) {
    if (left <= pause) return attempt->done(attempt->refusal);
    executor().PostAfter(pause, [self = shared_from_this(), attempt] { self->StartRound(attempt); });
    return;
  }
  if (attempt->cut_short && left > absl::ZeroDuration()) {
    attempt->patient = true;
    return StartRound(attempt);
  }
  // A question that is cut off by its own end says less than why it was asked again.
  const bool over = left <= absl::ZeroDuration() || absl::IsDeadlineExceeded(attempt->silence);
  const bool cut_off = over && !attempt->earlier_refusal.ok();
  if (!attempt->silence.ok()) return attempt->done(cut_off ? attempt->earlier_refusal : attempt->silence);
  attempt->done(absl::UnavailableError(Cat("no broker can be reached: ", absl::StrJoin(attempt->failures, "; "),
                                           ". Is sluiced running, and is the list of brokers right?")));
}

// Connected first: what cannot even be connected to was certainly not asked.
void Core::Reach(const std::shared_ptr<Attempt>& attempt, const std::string& address) {
  const absl::Duration left = attempt->deadline - clock().Monotonic();
  const bool others = attempt->tried < attempt->candidates.size() && !attempt->patient;
  const absl::Duration timeout =
      std::min({left, options_.connect_timeout, others ? kConnectShort : absl::InfiniteDuration()});
  const absl::Duration until = clock().Monotonic() + timeout;
  const bool cut = timeout < left;
  ChannelTo(address).Connect(timeout,
                             [self = shared_from_this(), attempt, address, until, cut](const absl::Status& status) {
                               if (status.ok()) return self->Ask(attempt, address);
                               attempt->cut_short = attempt->cut_short || (cut && self->clock().Monotonic() >= until);
                               attempt->failures.emplace_back(status.message());
                               self->TryNext(attempt);
                             });
}

void Core::Ask(const std::shared_ptr<Attempt>& attempt, const std::string& address) {
  const absl::Duration left = attempt->deadline - clock().Monotonic();
  const bool others = attempt->tried < attempt->candidates.size() && !attempt->patient;
  const bool brief = others && attempt->kind == Kind::kQuestion;
  attempt->cut_short = attempt->cut_short || (brief && left > kAnswerShort);
  ChannelTo(address).Call(attempt->method, attempt->request, brief ? std::min(left, kAnswerShort) : left,
                          [self = shared_from_this(), attempt, address](absl::StatusOr<Bytes> answer) {
                            self->OnAnswer(attempt, address, std::move(answer));
                          });
}

void Core::OnAnswer(const std::shared_ptr<Attempt>& attempt, const std::string& address, absl::StatusOr<Bytes> answer) {
  if (answer.ok()) {
    preferred_ = address;
    return attempt->done(std::move(answer));
  }
  const std::optional<ErrorDetail> detail = GetErrorDetail(answer.status());
  if (!detail.has_value()) {
    const bool unreached = absl::IsUnavailable(answer.status()) || absl::IsDeadlineExceeded(answer.status()) ||
                           absl::IsCancelled(answer.status());
    if (attempt->kind == Kind::kQuestion && unreached && !closed()) {
      attempt->silence = answer.status();
      return TryNext(attempt);
    }
    absl::Status asked = answer.status();
    asked.SetPayload(kAskedUrl, absl::Cord("yes"));
    return attempt->done(std::move(asked));
  }
  switch (detail->reason) {
    case Reason::kNotLeader:
      attempt->refusal = answer.status();
      if (detail->leader.empty() || detail->leader == address || ++attempt->redirects > kRedirectsMax) {
        return TryNext(attempt);
      }
      return Reach(attempt, detail->leader);
    case Reason::kNotAvailable:
      attempt->refusal = answer.status();
      return TryNext(attempt);
    case Reason::kUnknownTopic:
      if (attempt->kind == Kind::kChange) break;
      // A node that has not yet heard of a new topic says so too.
      attempt->absence = answer.status();
      return TryNext(attempt);
    default:
      break;
  }
  preferred_ = address;
  attempt->done(std::move(answer));
}

void Core::CallAt(const std::string& address, std::string_view method, Bytes request, absl::Duration timeout,
                  Done done) {
  ChannelTo(address).Call(method, std::move(request), timeout, std::move(done));
}

// A broker that is cut off from the others knows of no leader for as long as it is; another may. Not at once: while a
// leader is being elected nobody knows of one, and the next broker may be the one that died.
void Core::NoteLeaders(bool all_known) {
  const absl::Duration now = clock().Monotonic();
  if (all_known) {
    leaderless_since_.reset();
  } else if (!leaderless_since_.has_value()) {
    leaderless_since_ = now;
  } else if (now - *leaderless_since_ >= kElectionTakes) {
    leaderless_since_.reset();
    PreferNext();
  }
}

// Begins the next question with another broker than the one that answered last.
void Core::PreferNext() {
  const auto last = std::find(brokers_.begin(), brokers_.end(), preferred_);
  if (last != brokers_.end()) preferred_ = std::next(last) == brokers_.end() ? brokers_.front() : *std::next(last);
}

// Later known brokers stand in for those configured when none of these lives any more.
void Core::Hear(const std::string& address) {
  if (address.empty() || brokers_.size() >= options_.brokers.size() + kHeardMax) return;
  if (std::find(brokers_.begin(), brokers_.end(), address) == brokers_.end()) brokers_.push_back(address);
}

void Core::LearnNodes() {
  const absl::Duration now = clock().Monotonic();
  if (now - nodes_asked_at_ < options_.metadata_age_max) return;
  nodes_asked_at_ = now;
  CallAny(Kind::kQuestion, "/sluice.v1.Cluster/Describe", Serialize(v1::DescribeClusterRequest()), options_.timeout,
          [self = shared_from_this()](const absl::StatusOr<Bytes>& answer) {
            if (!answer.ok()) return;  // it only helps
            const auto response = ParseAs<v1::DescribeClusterResponse>(*answer);
            if (!response.ok()) return;
            for (const v1::Node& node : response->nodes()) self->Hear(node.address());
          });
}

void Core::DescribeTopic(const std::string& topic, absl::Duration timeout, Metadata::Done done) {
  v1::DescribeTopicRequest request;
  request.set_name(topic);
  CallAny(Kind::kQuestion, "/sluice.v1.Topics/Describe", Serialize(request), timeout,
          [self = shared_from_this(), done = std::move(done)](absl::StatusOr<Bytes> answer) mutable {
            if (!answer.ok()) return done(answer.status());
            const auto response = ParseAs<v1::DescribeTopicResponse>(*answer);
            if (!response.ok()) return done(response.status());
            auto routes = std::make_shared<TopicRoutes>();
            routes->id = Uuid::FromBytes(response->topic().id()).value_or(Uuid{});
            routes->partitions.resize(
                static_cast<size_t>(std::max(response->topic().partitions(), response->partitions_size())));
            for (const v1::PartitionInfo& partition : response->partitions()) {
              const auto at = static_cast<size_t>(partition.partition());
              if (at >= routes->partitions.size()) continue;
              routes->partitions[at].leader = partition.leader();
              routes->partitions[at].epoch = LeaderEpoch(partition.leader_epoch());
              routes->partitions[at].trouble = partition.error().message();
              self->Hear(partition.leader());
            }
            self->NoteLeaders(
                std::ranges::none_of(routes->partitions, [](const Route& route) { return route.leader.empty(); }));
            self->LearnNodes();
            done(std::move(routes));
          });
}

bool WasAsked(const absl::Status& status) {
  return status.GetPayload(kAskedUrl).has_value();
}

}  // namespace sluice::client
