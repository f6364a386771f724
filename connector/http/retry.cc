#include "connector/http/retry.h"

#include <algorithm>
#include <cctype>
#include <string>

#include "common/text.h"
#include "connector/http/headers.h"
#include "connector/http/url.h"
#include "connector/messages.h"

namespace sluice::connector::http {
namespace {

bool WorthAnotherTry(int status) {
  return status == 408 || status == 425 || status == 429 || (status >= 500 && status != 501 && status != 505);
}

bool WorthAnotherTry(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) || absl::IsDataLoss(status);
}

absl::Status StatusOf(const Response& response, const std::vector<Secret>& secrets) {
  const absl::StatusOr<Url> url = ParseUrl(response.url);
  const std::string body = Excerpt(response.body, secrets);
  const std::string text =
      Cat(url.ok() ? url->ForMessages() : "the server", ": answered ", response.status, body.empty() ? "" : ": ", body);
  switch (response.status) {
    case 401:
      return absl::UnauthenticatedError(text);
    case 403:
      return absl::PermissionDeniedError(text);
    case 404:
      return absl::NotFoundError(text);
    case 429:
      return absl::ResourceExhaustedError(text);
    default:
      return WorthAnotherTry(response.status) ? absl::UnavailableError(text) : absl::FailedPreconditionError(text);
  }
}

}  // namespace

absl::Duration Backoff(const RetryPolicy& policy, int retry, Random& random) {
  absl::Duration bound = policy.backoff_first;
  for (int i = 0; i < retry && bound < policy.backoff_max; ++i) bound *= 2;
  bound = std::min(bound, policy.backoff_max);
  const double share = static_cast<double>(random.Next() >> 11) * 0x1p-53;
  return bound * share;
}

absl::StatusOr<Response> SendWithRetries(Client& client, const Request& request, const RetryPolicy& policy,
                                         const Clock& clock, Random& random, StopSignal& stop, OnRetry on_retry) {
  for (int attempt = 1;; ++attempt) {
    if (stop.stopped()) return absl::CancelledError("stopped");
    absl::StatusOr<Response> response = client.Send(request);
    absl::Status why;
    absl::Duration wait = Backoff(policy, attempt - 1, random);
    if (!response.ok()) {
      if (!WorthAnotherTry(response.status())) return response;
      why = response.status();
    } else {
      if ((response->status >= 200 && response->status < 300) || response->status == 304) return response;
      why = StatusOf(*response, request.secrets);
      if (!WorthAnotherTry(response->status)) return why;
      if (const auto header = response->Header("retry-after")) {
        const absl::Duration asked = ParseRetryAfter(*header, clock.Wall()).value_or(absl::ZeroDuration());
        if (asked > policy.retry_after_max) {
          return absl::Status(why.code(), Cat(Message(why), " (and asks to wait ", absl::FormatDuration(asked), ")"));
        }
        // The jitter stays on top: everyone told to come back at one moment would otherwise come at once.
        if (asked > absl::ZeroDuration()) wait = asked + std::min(wait, policy.backoff_first);
      }
    }
    if (attempt >= policy.attempts_max) {
      return absl::Status(why.code(), Cat(Message(why), " (", attempt, attempt == 1 ? " try)" : " tries)"));
    }
    on_retry(why, wait);
    if (!stop.Sleep(wait)) return absl::CancelledError("stopped");
  }
}

}  // namespace sluice::connector::http
