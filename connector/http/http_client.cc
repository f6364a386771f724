#include "connector/http/http_client.h"

#include <algorithm>
#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl.hpp>
#include <cctype>
#include <charconv>
#include <chrono>
#include <variant>

#include "common/status_macros.h"
#include "common/text.h"
#include "connector/http/gzip.h"
#include "connector/http/headers.h"
#include "connector/http/url.h"

namespace sluice::connector::http {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace bhttp = boost::beast::http;
using tcp = asio::ip::tcp;
using ErrorCode = boost::system::error_code;
using Plain = beast::tcp_stream;
using Tls = beast::ssl_stream<beast::tcp_stream>;

constexpr uint32_t kHeaderBytesMax = 64 << 10;

std::chrono::nanoseconds Nanos(absl::Duration duration) {
  return absl::ToChronoNanoseconds(duration);
}

}  // namespace

std::optional<std::string_view> Response::Header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (key == name) return value;
  }
  return std::nullopt;
}

/// One connection at a time. Each step starts one asynchronous operation with a time limit and runs the loop until it
/// is done, which is how Beast's time-outs work for a caller that blocks.
class Client::Impl {
 public:
  explicit Impl(ClientOptions options)
      : options_(std::move(options)), tls_(asio::ssl::context::tls_client), resolver_(options_.lookup) {}

  absl::StatusOr<Response> Send(Request request) {
    std::string origin;
    for (int redirects = 0;; ++redirects) {
      SLUICE_ASSIGN_OR_RETURN(const Url url, ParseUrl(request.url));
      if (origin.empty()) origin = url.Origin();
      if (url.Origin() != origin) request.headers.clear();
      SLUICE_ASSIGN_OR_RETURN(Response response, Exchange(url, request));
      const int status = response.status;
      const bool redirect = status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
      const auto location = response.Header("location");
      if (!redirect || !location) return response;
      if (redirects == options_.redirects_max) {
        return absl::AbortedError(Cat(url.ForMessages(), ": more than ", options_.redirects_max, " redirects"));
      }
      SLUICE_ASSIGN_OR_RETURN(request.url, ResolveUrl(request.url, *location));
      if (url.tls && !request.url.starts_with("https:")) {
        return absl::AbortedError(Cat(url.ForMessages(), ": redirects from https to http, which is not followed"));
      }
      if (status <= 303) {
        request.post = false;
        request.body.clear();
      }
      SLUICE_ASSIGN_OR_RETURN(const Url next, ParseUrl(request.url));
      if (!request.body.empty() && next.Origin() != origin) {
        return absl::AbortedError(Cat(url.ForMessages(), ": redirects a POST to ", next.Origin(),
                                      ", which is not followed: its body may hold a secret"));
      }
    }
  }

  void Cancel() {
    cancelled_ = true;
    resolver_.Cancel();
    asio::post(loop_, [this] {
      if (Plain* stream = Lowest()) stream->cancel();
    });
  }

  int64_t connections() const { return connections_; }

 private:
  Plain* Lowest() {
    if (auto* plain = std::get_if<Plain>(&stream_)) return plain;
    if (auto* tls = std::get_if<std::unique_ptr<Tls>>(&stream_)) return &(*tls)->next_layer();
    return nullptr;
  }

  /// Runs `start(handler)` to its end.
  template <class Start>
  ErrorCode Await(Start start) {
    if (cancelled_) return asio::error::operation_aborted;
    ErrorCode result = asio::error::would_block;
    start([&result](ErrorCode error, auto&&...) { result = error; });
    loop_.restart();
    loop_.run();
    return result;
  }

  absl::Status Failed(const Url& url, std::string_view step, ErrorCode error) {
    Close();
    if (cancelled_) return absl::CancelledError(Cat(url.ForMessages(), ": stopped"));
    const std::string text = Cat(url.ForMessages(), ": ", step, ": ", error.message());
    if (error == beast::error::timeout)
      return absl::DeadlineExceededError(Cat(url.ForMessages(), ": ", step, ": timed out"));
    if (error == bhttp::error::body_limit) {
      return absl::ResourceExhaustedError(
          Cat(url.ForMessages(), ": the answer is larger than ", options_.body_bytes_max, " bytes"));
    }
    if (error == bhttp::error::header_limit) return absl::ResourceExhaustedError(text);
    return absl::UnavailableError(text);
  }

  void Close() {
    stream_ = std::monostate();
    origin_.clear();
    buffer_.clear();
  }

  absl::Status PrepareTls(const Url& url) {
    if (tls_ready_) return absl::OkStatus();
    ErrorCode error;
    tls_.set_options(asio::ssl::context::default_workarounds | asio::ssl::context::no_sslv2 |
                     asio::ssl::context::no_sslv3 | asio::ssl::context::no_tlsv1 | asio::ssl::context::no_tlsv1_1);
    if (options_.ca_file.empty()) {
      tls_.set_default_verify_paths(error);
    } else {
      tls_.load_verify_file(options_.ca_file, error);
    }
    if (error) {
      return absl::FailedPreconditionError(
          Cat(url.ForMessages(), ": cannot load the certificates to trust",
              options_.ca_file.empty() ? std::string() : Cat(" from ", options_.ca_file), ": ", error.message()));
    }
    tls_.set_verify_mode(asio::ssl::verify_peer, error);
    tls_ready_ = true;
    return absl::OkStatus();
  }

  absl::Status Connect(const Url& url) {
    Close();
    const absl::Duration until = Now() + options_.connect_timeout;
    SLUICE_ASSIGN_OR_RETURN(const std::vector<tcp::endpoint> addresses, Find(url));
    ++connections_;
    stream_.emplace<Plain>(loop_);
    Plain& plain = std::get<Plain>(stream_);
    plain.expires_after(Nanos(until - Now()));
    ErrorCode error = Await([&](auto done) { plain.async_connect(addresses, done); });
    if (error) return Failed(url, "cannot connect", error);
    plain.socket().set_option(tcp::no_delay(true), error);
    if (url.tls) SLUICE_RETURN_IF_ERROR(Handshake(url, until));
    origin_ = url.Origin();
    return absl::OkStatus();
  }

  /// What the connect time-out counts by.
  static absl::Duration Now() { return absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch()); }

  absl::StatusOr<std::vector<tcp::endpoint>> Find(const Url& url) {
    const absl::StatusOr<std::vector<std::string>> found = resolver_.Resolve(url.host, options_.connect_timeout);
    if (!found.ok()) {
      const absl::Status& why = found.status();
      if (absl::IsCancelled(why)) return absl::CancelledError(Cat(url.ForMessages(), ": stopped"));
      return absl::Status(why.code(),
                          Cat(url.ForMessages(), ": cannot find the host '", url.host, "': ", sluice::Message(why)));
    }
    uint16_t port = 0;
    const auto [end, error] = std::from_chars(url.port.data(), url.port.data() + url.port.size(), port);
    if (error != std::errc() || end != url.port.data() + url.port.size()) {
      return absl::InvalidArgumentError(Cat(url.ForMessages(), ": '", url.port, "' is no port"));
    }
    std::vector<tcp::endpoint> addresses;
    for (const std::string& text : *found) {
      ErrorCode wrong;
      const asio::ip::address address = asio::ip::make_address(text, wrong);
      if (!wrong) addresses.emplace_back(address, port);
    }
    return addresses;
  }

  absl::Status Handshake(const Url& url, absl::Duration until) {
    if (absl::Status ready = PrepareTls(url); !ready.ok()) {
      Close();
      return ready;
    }
    auto tls = std::make_unique<Tls>(std::move(std::get<Plain>(stream_)), tls_);
    Tls& stream = *tls;
    stream_ = std::move(tls);
    ErrorCode ignored;
    const bool is_address = (asio::ip::make_address(url.host, ignored), !ignored);
    if (!is_address) SSL_set_tlsext_host_name(stream.native_handle(), url.host.c_str());  // SNI takes names only
    stream.set_verify_callback(asio::ssl::host_name_verification(url.host));
    stream.next_layer().expires_after(Nanos(until - Now()));
    const ErrorCode error = Await([&](auto done) { stream.async_handshake(asio::ssl::stream_base::client, done); });
    if (!error) return absl::OkStatus();
    const long verdict = SSL_get_verify_result(stream.native_handle());
    const bool certificate =
        error.category() == asio::error::get_ssl_category() &&
        ERR_GET_REASON(static_cast<unsigned long>(error.value())) == SSL_R_CERTIFICATE_VERIFY_FAILED;
    if (!certificate) return Failed(url, "TLS handshake", error);
    Close();
    // A certificate that is sound but of another host is refused by the host name check, which leaves no code of its
    // own.
    const std::string why = verdict == X509_V_OK || verdict == X509_V_ERR_UNSPECIFIED
                                ? Cat("it is not for the host '", url.host, "'")
                                : std::string(X509_verify_cert_error_string(verdict));
    return absl::FailedPreconditionError(Cat(url.ForMessages(), ": the server's certificate is not accepted: ", why));
  }

  absl::StatusOr<Response> Exchange(const Url& url, const Request& request) {
    const bool reused = origin_ == url.Origin() && Lowest() != nullptr;
    if (!reused) SLUICE_RETURN_IF_ERROR(Connect(url));
    bool answered = false;
    absl::StatusOr<Response> response = ExchangeOnce(url, request, &answered);
    // A kept connection may have been closed by the server meanwhile: that says nothing, so ask on a new one.
    if (response.ok() || !reused || answered || !absl::IsUnavailable(response.status())) return response;
    SLUICE_RETURN_IF_ERROR(Connect(url));
    return ExchangeOnce(url, request, &answered);
  }

  absl::StatusOr<Response> ExchangeOnce(const Url& url, const Request& request, bool* answered) {
    if (auto* tls = std::get_if<std::unique_ptr<Tls>>(&stream_)) return ExchangeOn(**tls, url, request, answered);
    return ExchangeOn(std::get<Plain>(stream_), url, request, answered);
  }

  bhttp::request<bhttp::string_body> Message(const Url& url, const Request& request) const {
    bhttp::request<bhttp::string_body> message(request.post ? bhttp::verb::post : bhttp::verb::get, url.target, 11);
    message.set(bhttp::field::host, url.HostHeader());
    message.set(bhttp::field::user_agent, options_.user_agent);
    message.set(bhttp::field::accept, "application/json");
    message.set(bhttp::field::accept_encoding, "gzip");
    for (const auto& [name, value] : request.headers) message.set(name, value);
    message.keep_alive(true);
    if (request.post) {
      message.body() = request.body;
      if (message.find(bhttp::field::content_type) == message.end()) {
        message.set(bhttp::field::content_type, "application/json");
      }
      message.prepare_payload();
    }
    return message;
  }

  template <class Stream>
  absl::StatusOr<Response> ExchangeOn(Stream& stream, const Url& url, const Request& request, bool* answered) {
    const auto message = Message(url, request);
    Lowest()->expires_after(Nanos(options_.read_timeout));
    ErrorCode error = Await([&](auto done) { bhttp::async_write(stream, message, done); });
    if (error) return Failed(url, "sending the request", error);

    bhttp::response_parser<bhttp::string_body> parser;
    parser.header_limit(kHeaderBytesMax);
    parser.body_limit(static_cast<uint64_t>(options_.body_bytes_max));
    error = Await([&](auto done) { bhttp::async_read_header(stream, buffer_, parser, done); });
    *answered = parser.got_some();
    if (!error) error = Await([&](auto done) { bhttp::async_read(stream, buffer_, parser, done); });
    if (error == bhttp::error::end_of_stream || error == bhttp::error::partial_message ||
        error == asio::ssl::error::stream_truncated) {
      return Failed(url, *answered ? "the answer was cut short" : "the server closed the connection", error);
    }
    if (error) return Failed(url, "reading the answer", error);
    return Finish(url, request, parser.release());
  }

  absl::StatusOr<Response> Finish(const Url& url, const Request& request, bhttp::response<bhttp::string_body> message) {
    Response response;
    response.status = static_cast<int>(message.result_int());
    response.url = request.url;
    for (const auto& field : message) {
      response.headers.emplace_back(Lower({field.name_string().data(), field.name_string().size()}),
                                    std::string(field.value().data(), field.value().size()));
    }
    response.body = std::move(message.body());
    if (!message.keep_alive()) Close();
    const auto encoding = response.Header("content-encoding");
    if (encoding && Lower(*encoding) == "gzip") {
      absl::StatusOr<std::string> text = Gunzip(response.body, options_.body_bytes_max);
      if (!text.ok())
        return absl::Status(text.status().code(), Cat(url.ForMessages(), ": ", sluice::Message(text.status())));
      response.body = *std::move(text);
    } else if (encoding && Lower(*encoding) != "identity") {
      return absl::FailedPreconditionError(
          Cat(url.ForMessages(), ": answers with Content-Encoding '", *encoding, "', which was not asked for"));
    }
    return response;
  }

  const ClientOptions options_;
  asio::io_context loop_;
  asio::ssl::context tls_;
  bool tls_ready_ = false;
  Resolver resolver_;
  std::variant<std::monostate, Plain, std::unique_ptr<Tls>> stream_;
  beast::flat_buffer buffer_;
  std::string origin_;  // of stream_; empty: not connected
  std::atomic<int64_t> connections_{0};
  std::atomic<bool> cancelled_{false};
};

Client::Client(ClientOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
Client::~Client() = default;
absl::StatusOr<Response> Client::Send(const Request& request) {
  return impl_->Send(request);
}
void Client::Cancel() {
  impl_->Cancel();
}
int64_t Client::connections() const {
  return impl_->connections();
}

}  // namespace sluice::connector::http
