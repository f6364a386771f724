#include "connector/source/http_source.h"

#include <utility>

#include "common/status_macros.h"
#include "common/text.h"
#include "connector/http/url.h"
#include "connector/messages.h"
#include "connector/source/http_page.h"

namespace sluice::connector {
namespace {

constexpr int kPageTries = 3;  // of an answer that came whole but is not what it should be

/// What to look at in the pipeline's file after an error of this kind.
std::string_view HintFor(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kPermissionDenied:
      return " (check `auth` and `headers`)";
    case absl::StatusCode::kNotFound:
      return " (check `url`)";
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
      return " (check that the host is up and `url` is right)";
    case absl::StatusCode::kInvalidArgument:
      return " (check `records`, `pagination` and `url`)";
    default:
      return "";
  }
}

}  // namespace

HttpSource::HttpSource(HttpSourceConfig config, SliceConfig slice, std::optional<std::string> key_pointer, Seams seams)
    : config_(std::move(config)),
      slice_(std::move(slice)),
      key_pointer_(std::move(key_pointer)),
      seams_(std::move(seams)),
      policy_{.attempts_max = config_.attempts_max, .backoff_max = config_.backoff_max},
      client_(std::make_shared<http::Client>(http::ClientOptions{.connect_timeout = config_.connect_timeout,
                                                                 .read_timeout = config_.read_timeout,
                                                                 .body_bytes_max = config_.body_bytes_max,
                                                                 .redirects_max = config_.redirects_max,
                                                                 .ca_file = config_.ca_file})) {
  seams_.stop->OnStop([client = std::weak_ptr(client_)] {
    if (const auto alive = client.lock()) alive->Cancel();
  });
}

absl::StatusOr<Page> HttpSource::Fetch(const PageAsk& ask) {
  absl::StatusOr<Page> page = FetchOnce(ask);
  if (page.ok() || absl::IsCancelled(page.status())) return page;
  // The shape of the answer is what `records` is about.
  const std::string& at = absl::IsInvalidArgument(page.status()) ? config_.records_at : config_.at;
  const std::string text = Redacted(Cat(Message(page.status()), HintFor(page.status())), config_.secrets);
  return absl::Status(page.status().code(), at.empty() ? text : Cat(at, ": ", text));
}

absl::StatusOr<Page> HttpSource::FetchOnce(const PageAsk& ask) {
  SLUICE_ASSIGN_OR_RETURN(const http::Request request, BuildPageRequest(config_, slice_, ask));
  const auto on_retry = [this](const absl::Status& why, absl::Duration wait) {
    if (seams_.on_retry)
      seams_.on_retry(absl::Status(why.code(), Redacted(std::string(Message(why)), config_.secrets)), wait);
  };
  for (int attempt = 1;; ++attempt) {
    SLUICE_ASSIGN_OR_RETURN(
        const http::Response response,
        http::SendWithRetries(*client_, request, policy_, *seams_.clock, *seams_.random, *seams_.stop, on_retry));
    absl::StatusOr<Page> page = ReadPage(config_, key_pointer_, ask, response);
    if (page.ok()) return page;
    SLUICE_ASSIGN_OR_RETURN(const http::Url url, http::ParseUrl(response.url));
    const absl::Status why = Located(Cat(url.ForMessages(), ": the page cannot be used"), page.status());
    // Some servers cut an answer short and still call it whole; a few more tries tell that from a wrong configuration.
    if (attempt == kPageTries || !(absl::IsInvalidArgument(why) || absl::IsDataLoss(why))) return why;
    const absl::Duration wait = http::Backoff(policy_, attempt - 1, *seams_.random);
    on_retry(why, wait);
    if (!seams_.stop->Sleep(wait)) return absl::CancelledError("stopped");
  }
}

}  // namespace sluice::connector
