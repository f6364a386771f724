// For tests: a server that answers each request with the very bytes it is told, over TCP or TLS, so that every way in
// which an API can go wrong can be played.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace sluice::connector::http {

/// A self-signed certificate for `names` ("DNS:localhost,IP:127.0.0.1"), written to `pem_path` for the client to trust.
class TestCertificate {
 public:
  TestCertificate(const std::string& names, const std::string& pem_path)
      : key_(EVP_RSA_gen(2048)), certificate_(X509_new()) {
    X509_set_version(certificate_, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate_), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate_), -3600);
    X509_gmtime_adj(X509_getm_notAfter(certificate_), 3600);
    X509_set_pubkey(certificate_, key_);
    X509_NAME* name = X509_get_subject_name(certificate_);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>("test"), -1, -1, 0);
    X509_set_issuer_name(certificate_, name);
    X509_EXTENSION* alternative = X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, names.c_str());
    X509_add_ext(certificate_, alternative, -1);
    X509_EXTENSION_free(alternative);
    X509_sign(certificate_, key_, EVP_sha256());
    FILE* file = fopen(pem_path.c_str(), "w");
    PEM_write_X509(file, certificate_);
    fclose(file);
  }
  ~TestCertificate() {
    X509_free(certificate_);
    EVP_PKEY_free(key_);
  }
  EVP_PKEY* key() const { return key_; }
  X509* certificate() const { return certificate_; }

 private:
  EVP_PKEY* key_;
  X509* certificate_;
};

class TestServer {
 public:
  /// What to send for the n-th request (from 0), given as its text; empty: hang up.
  using Answer = std::function<std::string(int request, const std::string& text)>;

  explicit TestServer(Answer answer, const TestCertificate* certificate = nullptr) : answer_(std::move(answer)) {
    signal(SIGPIPE, SIG_IGN);  // a client that refuses the certificate hangs up first
    if (certificate != nullptr) {
      tls_ = SSL_CTX_new(TLS_server_method());
      SSL_CTX_use_certificate(tls_, certificate->certificate());
      SSL_CTX_use_PrivateKey(tls_, certificate->key());
    }
    listener_ = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    bind(listener_, reinterpret_cast<sockaddr*>(&address), size);
    listen(listener_, 16);
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { Serve(); });
  }
  ~TestServer() {
    stopping_ = true;
    shutdown(listener_, SHUT_RDWR);
    {
      const std::lock_guard lock(mutex_);
      if (connection_ >= 0) shutdown(connection_, SHUT_RDWR);
    }
    thread_.join();
    close(listener_);
    if (tls_ != nullptr) SSL_CTX_free(tls_);
  }

  std::string Url(const std::string& host = "127.0.0.1") const {
    return (tls_ != nullptr ? "https://" : "http://") + host + ":" + std::to_string(port_);
  }
  int requests() const { return requests_; }
  int connections() const { return connections_; }
  std::string last_request() const {
    const std::lock_guard lock(mutex_);
    return last_;
  }

  static std::string Ok(const std::string& body, const std::string& headers = "") {
    return "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) + "\r\n" + headers + "\r\n" + body;
  }
  static std::string Status(int status, const std::string& headers = "", const std::string& body = "") {
    return "HTTP/1.1 " + std::to_string(status) + " Some reason\r\nContent-Length: " + std::to_string(body.size()) +
           "\r\n" + headers + "\r\n" + body;
  }

 private:
  void Serve() {
    while (!stopping_) {
      const int connection = accept(listener_, nullptr, nullptr);
      if (connection < 0) continue;
      {
        const std::lock_guard lock(mutex_);
        connection_ = connection;
      }
      ++connections_;
      SSL* tls = nullptr;
      if (tls_ != nullptr) {
        tls = SSL_new(tls_);
        SSL_set_fd(tls, connection);
      }
      if (tls == nullptr || SSL_accept(tls) == 1) Converse(connection, tls);
      if (tls != nullptr) SSL_free(tls);
      const std::lock_guard lock(mutex_);
      close(connection);
      connection_ = -1;
    }
  }

  void Converse(int connection, SSL* tls) {
    std::string text;
    char block[4096];
    while (!stopping_) {
      const auto count =
          tls != nullptr ? SSL_read(tls, block, sizeof(block)) : recv(connection, block, sizeof(block), 0);
      if (count <= 0) return;
      text.append(block, static_cast<size_t>(count));
      const size_t head = text.find("\r\n\r\n");
      if (head == std::string::npos) continue;
      const size_t length_at = text.find("Content-Length: ");
      const size_t body = length_at == std::string::npos ? 0 : std::stoul(text.substr(length_at + 16));
      if (text.size() < head + 4 + body) continue;
      {
        const std::lock_guard lock(mutex_);
        last_ = text;
      }
      const std::string answer = answer_(requests_++, text);
      text.clear();
      const int size = static_cast<int>(answer.size());
      const auto sent = tls != nullptr ? (size > 0 ? SSL_write(tls, answer.data(), size) : 0)
                                       : send(connection, answer.data(), answer.size(), MSG_NOSIGNAL);
      // A body shorter than its Content-Length is followed by the end of the connection.
      if (sent <= 0 || answer.find("X-Hang-Up") != std::string::npos) return;
    }
  }

  const Answer answer_;
  SSL_CTX* tls_ = nullptr;
  int listener_ = -1;
  uint16_t port_ = 0;
  std::atomic<bool> stopping_{false};
  std::atomic<int> requests_{0};
  std::atomic<int> connections_{0};
  mutable std::mutex mutex_;
  int connection_ = -1;
  std::string last_;
  std::thread thread_;
};

}  // namespace sluice::connector::http
