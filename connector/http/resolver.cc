#include "connector/http/resolver.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

#include "common/text.h"

namespace sluice::connector::http {

absl::StatusOr<std::vector<std::string>> Resolver::SystemLookup(const std::string& host) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_ADDRCONFIG;
  addrinfo* list = nullptr;
  int error = getaddrinfo(host.c_str(), nullptr, &hints, &list);
  if (error == EAI_NONAME || error == EAI_ADDRFAMILY) {  // on a machine that has only a loopback interface
    hints.ai_flags = 0;
    error = getaddrinfo(host.c_str(), nullptr, &hints, &list);
  }
  if (error != 0) return absl::UnavailableError(error == EAI_SYSTEM ? std::strerror(errno) : gai_strerror(error));
  std::vector<std::string> addresses;
  for (const addrinfo* at = list; at != nullptr; at = at->ai_next) {
    char text[NI_MAXHOST];
    if (getnameinfo(at->ai_addr, at->ai_addrlen, text, sizeof(text), nullptr, 0, NI_NUMERICHOST) != 0) continue;
    if (std::find(addresses.begin(), addresses.end(), text) == addresses.end()) addresses.emplace_back(text);
  }
  freeaddrinfo(list);
  if (addresses.empty()) return absl::UnavailableError("it has no address");
  return addresses;
}

absl::StatusOr<std::vector<std::string>> Resolver::Resolve(const std::string& host, absl::Duration timeout) {
  std::shared_ptr<Question> question;
  {
    const std::lock_guard lock(mutex_);
    if (cancelled_) return absl::CancelledError("stopped");
    if (question_ == nullptr || host_ != host) {
      question_ = std::make_shared<Question>();
      host_ = host;
      std::thread([question = question_, lookup = lookup_, host] {
        absl::StatusOr<std::vector<std::string>> answer = lookup(host);
        const std::lock_guard done(question->mutex);
        question->answer = std::move(answer);
        question->done = true;
        question->changed.notify_all();
      }).detach();
    }
    question = question_;
  }
  std::unique_lock lock(question->mutex);
  const bool ended = question->changed.wait_for(lock, absl::ToChronoNanoseconds(timeout),
                                                [&] { return question->done || question->cancelled; });
  if (question->cancelled) return absl::CancelledError("stopped");
  if (!ended) return absl::DeadlineExceededError("timed out");
  absl::StatusOr<std::vector<std::string>> answer = question->answer;
  lock.unlock();
  const std::lock_guard forget(mutex_);
  question_ = nullptr;  // names move: each connection asks anew
  return answer;
}

void Resolver::Cancel() {
  const std::lock_guard lock(mutex_);
  cancelled_ = true;
  if (question_ == nullptr) return;
  const std::lock_guard asked(question_->mutex);
  question_->cancelled = true;
  question_->changed.notify_all();
}

}  // namespace sluice::connector::http
