// A small HTTP/1.1 server for what operators and probes read: metrics and health.
//
// Answers GET and HEAD of exact paths; anything else is 404 or 405. One thread of its own. Everything is bounded:
// connections, header and body bytes, time for a request to arrive and for an answer to be read; a client that passes
// a bound is answered or dropped, never waited for.
// Threads: Handle before Start; the rest from any one thread. A handler runs on the listener's thread and must not
// block; it may answer later, from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/time/time.h"

namespace sluice::runtime {

struct HttpAnswer {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
};

struct HttpRequest {
  std::string path;   ///< Without the query.
  std::string query;  ///< Behind '?', as sent; empty when there is none.
};

using HttpRespond = absl::AnyInvocable<void(HttpAnswer)>;
using HttpHandler = absl::AnyInvocable<void(const HttpRequest&, HttpRespond)>;

struct HttpListenerOptions {
  std::string host = "127.0.0.1";  ///< An IP address, or "localhost".
  uint16_t port = 0;               ///< 0: any free one, see HttpListener::port().
  int connections_max = 64;
  uint32_t header_bytes_max = 8 << 10;
  uint64_t body_bytes_max = 64 << 10;
  absl::Duration request_time_max = absl::Seconds(10);
};

class HttpListener {
 public:
  explicit HttpListener(HttpListenerOptions options);
  /// Stops. No handler runs afterwards; answers that come later are dropped.
  ~HttpListener();
  HttpListener(const HttpListener&) = delete;
  HttpListener& operator=(const HttpListener&) = delete;

  void Handle(std::string path, HttpHandler handler);
  /// Binds and serves. INVALID_ARGUMENT for an address that is none, UNAVAILABLE when it cannot be bound; the message
  /// names it.
  absl::Status Start();
  /// The port bound; 0 before Start.
  uint16_t port() const;

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace sluice::runtime
