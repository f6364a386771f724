#include "runtime/http_listener.h"

#include <pthread.h>

#include <atomic>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <list>
#include <map>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

namespace sluice::runtime {
namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

std::string_view ToView(beast::string_view text) {
  return {text.data(), text.size()};
}

}  // namespace

class HttpListener::Impl : public std::enable_shared_from_this<Impl> {
 public:
  explicit Impl(HttpListenerOptions options) : options_(std::move(options)), acceptor_(context_) {}

  absl::Status Start() {
    error_code error;
    const std::string host = options_.host == "localhost" ? "127.0.0.1" : options_.host;
    const auto address = asio::ip::make_address(host, error);
    if (error) return absl::InvalidArgumentError(absl::StrCat("HTTP: '", options_.host, "' is not an IP address"));
    const tcp::endpoint endpoint(address, options_.port);
    acceptor_.open(endpoint.protocol(), error);
    if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor_.bind(endpoint, error);
    if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
    if (error) {
      return absl::UnavailableError(
          absl::StrCat("HTTP: cannot listen on ", options_.host, ":", options_.port, ": ", error.message()));
    }
    port_ = acceptor_.local_endpoint().port();
    Accept();
    thread_ = std::thread([this] { context_.run(); });
    pthread_setname_np(thread_.native_handle(), "sluice-http");
    return absl::OkStatus();
  }

  void Stop();

  HttpListenerOptions options_;
  std::map<std::string, HttpHandler, std::less<>> handlers_;
  std::atomic<uint16_t> port_{0};

 private:
  class Connection;

  void Accept();

  asio::io_context context_{1};
  tcp::acceptor acceptor_;
  std::thread thread_;
  // On the thread only.
  std::set<Connection*> connections_;
  bool accepting_ = false;  // an accept is under way
  bool stopping_ = false;
};

// One client. Keeps itself alive by the operations under way; touched only on the listener's thread.
class HttpListener::Impl::Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(Impl& listener, tcp::socket socket) : listener_(listener), stream_(std::move(socket)) {
    listener_.connections_.insert(this);
  }
  ~Connection() {
    listener_.connections_.erase(this);
    listener_.Accept();
  }

  /// Ends every operation under way, which drops the last references.
  void Close() {
    const auto keep = std::exchange(waiting_, nullptr);
    stream_.close();
  }

  void Read() {
    parser_.emplace();
    parser_->header_limit(listener_.options_.header_bytes_max);
    parser_->body_limit(listener_.options_.body_bytes_max);
    // The time runs for the whole request, so that one byte now and then does not hold a connection.
    stream_.expires_after(absl::ToChronoMilliseconds(listener_.options_.request_time_max));
    http::async_read(stream_, buffer_, *parser_,
                     [self = shared_from_this()](const error_code& error, size_t) { self->OnRead(error); });
  }

 private:
  void OnRead(const error_code& error) {
    // Gone, too slow, or broken: nobody to answer.
    if (error == http::error::end_of_stream || error == beast::error::timeout) return;
    if (error && error.category() == boost::system::system_category()) return;
    keep_alive_ = !error && parser_->get().keep_alive();
    head_ = !error && parser_->get().method() == http::verb::head;
    if (error == http::error::header_limit) return Write({431, "text/plain", "the header is too large\n"});
    if (error == http::error::body_limit) return Write({413, "text/plain", "the body is too large\n"});
    if (error) return Write({400, "text/plain", "not an HTTP request\n"});
    Dispatch();
  }

  void Dispatch() {
    const auto& message = parser_->get();
    const std::string_view target = ToView(message.target());
    const size_t mark = target.find('?');
    const HttpRequest request{std::string(target.substr(0, mark)),
                              std::string(mark == target.npos ? "" : target.substr(mark + 1))};
    const auto found = listener_.handlers_.find(request.path);
    if (found == listener_.handlers_.end()) return Write({404, "text/plain", "nothing here\n"});
    if (message.method() != http::verb::get && !head_) return Write({405, "text/plain", "GET or HEAD only\n"});
    stream_.expires_never();
    // The handler may answer from any thread and at any time, even after the listener is gone.
    found->second(request, [weak = weak_from_this(), alive = listener_.weak_from_this()](HttpAnswer answer) {
      const auto owner = alive.lock();
      if (!owner) return;
      asio::post(owner->context_, [weak, answer = std::move(answer)]() mutable {
        if (const auto self = weak.lock()) self->Write(std::move(answer));
      });
    });
    waiting_ = shared_from_this();  // nothing else holds the connection until the answer comes
  }

  void Write(HttpAnswer answer) {
    const auto keep = std::exchange(waiting_, nullptr);
    response_ = {};
    response_.version(11);
    response_.result(static_cast<unsigned>(answer.status));
    response_.set(http::field::content_type, answer.content_type);
    response_.keep_alive(keep_alive_);
    response_.body() = std::move(answer.body);
    response_.prepare_payload();
    if (head_) response_.body().clear();
    serializer_.emplace(response_);
    serializer_->split(head_);
    stream_.expires_after(absl::ToChronoMilliseconds(listener_.options_.request_time_max));
    auto written = [self = shared_from_this()](const error_code& error, size_t) {
      if (error) return;
      if (self->keep_alive_) return self->Read();
      error_code ignored;
      self->stream_.socket().shutdown(tcp::socket::shutdown_send, ignored);
    };
    if (head_) {
      http::async_write_header(stream_, *serializer_, std::move(written));
    } else {
      http::async_write(stream_, *serializer_, std::move(written));
    }
  }

  Impl& listener_;
  beast::tcp_stream stream_;
  beast::flat_buffer buffer_;
  std::optional<http::request_parser<http::string_body>> parser_;
  http::response<http::string_body> response_;
  std::optional<http::response_serializer<http::string_body>> serializer_;
  bool keep_alive_ = false;
  bool head_ = false;
  std::shared_ptr<Connection> waiting_;
};

void HttpListener::Impl::Accept() {
  if (accepting_ || stopping_ || static_cast<int>(connections_.size()) >= options_.connections_max) return;
  accepting_ = true;
  acceptor_.async_accept([this](const error_code& error, tcp::socket socket) {
    accepting_ = false;
    if (stopping_) return;
    if (!error) std::make_shared<Connection>(*this, std::move(socket))->Read();
    Accept();
  });
}

void HttpListener::Impl::Stop() {
  if (!thread_.joinable()) return;
  asio::post(context_, [this] {
    stopping_ = true;
    error_code ignored;
    acceptor_.close(ignored);
    const std::set<Connection*> open = connections_;
    for (Connection* connection : open) {
      if (connections_.contains(connection)) connection->Close();
    }
  });
  thread_.join();  // once nothing is under way, the context runs out of work
}

HttpListener::HttpListener(HttpListenerOptions options) : impl_(std::make_shared<Impl>(std::move(options))) {}
HttpListener::~HttpListener() {
  impl_->Stop();
}
void HttpListener::Handle(std::string path, HttpHandler handler) {
  impl_->handlers_.emplace(std::move(path), std::move(handler));
}
absl::Status HttpListener::Start() {
  return impl_->Start();
}
uint16_t HttpListener::port() const {
  return impl_->port_;
}

}  // namespace sluice::runtime
