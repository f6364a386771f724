#include "connector/http/url.h"

#include <catch2/catch.hpp>

#include "common/text.h"

namespace sluice::connector::http {

TEST_CASE("A URL comes apart into what a connection needs") {
  const auto url = ParseUrl("https://API.example.com/a%20b?c=d&e#frag");
  REQUIRE(url.ok());
  CHECK(url->tls);
  CHECK(url->host == "api.example.com");
  CHECK(url->port == "443");
  CHECK(url->target == "/a%20b?c=d&e");
  CHECK(url->Origin() == "https://api.example.com");
  CHECK(url->ForMessages() == "https://api.example.com/a%20b");
  const auto v6 = ParseUrl("http://[::1]:8080");
  REQUIRE(v6.ok());
  CHECK(v6->host == "::1");
  CHECK(v6->target == "/");
  CHECK(v6->HostHeader() == "[::1]:8080");
  CHECK(ParseUrl("http://h:80/")->Origin() == ParseUrl("http://h/")->Origin());
}

TEST_CASE("What cannot be pulled from is refused, without telling its query") {
  for (const char* text : {"", "no url", "ftp://h/", "http:///path", "file:///etc/passwd", "http://user:pw@h/", "//h/p",
                           "http://h:p/x", "http://h:x"}) {
    INFO(text);
    CHECK(absl::IsInvalidArgument(ParseUrl(text).status()));
  }
  CHECK(Message(ParseUrl("ftp://h/?token=canary").status()).find("canary") == std::string_view::npos);
  CHECK(Message(ParseUrl("http://me:canary@h/").status()).find("canary") == std::string_view::npos);
}

TEST_CASE("Parameters are added and replaced, and encoded") {
  CHECK(*WithParams("http://h/p?limit=100&page=1", {{"page", "2"}, {"q", "a b&c=d"}}) ==
        "http://h/p?limit=100&page=2&q=a%20b%26c=d");
  CHECK(*WithParams("http://h/p", {}) == "http://h/p");
  CHECK(*WithParams("http://h/p", {{"a", ""}}) == "http://h/p?a=");
}

TEST_CASE("A next URL may be whole or relative") {
  CHECK(*ResolveUrl("http://h/a/b?x=1", "http://other/c") == "http://other/c");
  CHECK(*ResolveUrl("http://h/a/b?x=1", "/c?page=2") == "http://h/c?page=2");
  CHECK(*ResolveUrl("http://h/a/b?x=1", "c") == "http://h/a/c");
  CHECK(*ResolveUrl("http://h/a/b?x=1", "?page=2") == "http://h/a/b?page=2");
  CHECK_FALSE(ResolveUrl("http://h/", "http://bad host/").ok());
}

}  // namespace sluice::connector::http
