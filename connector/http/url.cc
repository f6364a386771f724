#include "connector/http/url.h"

#include <algorithm>
#include <boost/url.hpp>
#include <cctype>

#include "common/status_macros.h"
#include "common/text.h"

namespace sluice::connector::http {
namespace {

namespace urls = boost::urls;

absl::Status Bad(std::string_view text, std::string_view why) {
  return absl::InvalidArgumentError(Cat("'", text.substr(0, text.find('?')), "' is not a URL to pull from: ", why));
}

absl::StatusOr<urls::url> Parse(std::string_view text) {
  auto parsed = urls::parse_uri(boost::core::string_view(text.data(), text.size()));
  if (!parsed) return Bad(text, "not of the form http://host/path");
  return urls::url(*parsed);
}

template <class View>
std::string Text(const View& view) {
  return std::string(view.data(), view.size());
}

}  // namespace

std::string Url::Origin() const {
  return Cat(tls ? "https://" : "http://", HostHeader());
}

std::string Url::HostHeader() const {
  const bool v6 = host.find(':') != std::string::npos;
  const std::string name = v6 ? Cat("[", host, "]") : host;
  return port == (tls ? "443" : "80") ? name : Cat(name, ":", port);
}

std::string Url::ForMessages() const {
  return Cat(Origin(), target.substr(0, target.find('?')));
}

absl::StatusOr<Url> ParseUrl(std::string_view text) {
  SLUICE_ASSIGN_OR_RETURN(const urls::url parsed, Parse(text));
  Url url;
  if (parsed.scheme_id() == urls::scheme::https) {
    url.tls = true;
  } else if (parsed.scheme_id() != urls::scheme::http) {
    return Bad(text, "only http and https");
  }
  if (parsed.has_userinfo()) {
    return absl::InvalidArgumentError("a URL with a user name in it is refused: use `auth`");
  }
  url.host =
      parsed.host_type() == urls::host_type::name ? std::string(parsed.host()) : Text(parsed.encoded_host_address());
  std::transform(url.host.begin(), url.host.end(), url.host.begin(), [](unsigned char c) { return std::tolower(c); });
  if (url.host.empty()) return Bad(text, "it has no host");
  url.port = parsed.has_port() && !parsed.port().empty() ? Text(parsed.port()) : (url.tls ? "443" : "80");
  url.target = Text(parsed.encoded_path());
  // Boost.URL takes http://h:x for a host with an empty port, and the path x.
  if (!url.target.empty() && url.target.front() != '/') return Bad(text, "its port is not a number");
  if (url.target.empty()) url.target.push_back('/');
  if (parsed.has_query()) url.target += Cat("?", Text(parsed.encoded_query()));
  return url;
}

absl::StatusOr<std::string> WithParams(std::string_view text, const Params& params) {
  SLUICE_ASSIGN_OR_RETURN(urls::url url, Parse(text));
  for (const auto& [name, value] : params) {
    auto query = url.params();
    auto found = query.find(name);
    if (found != query.end()) {
      query.replace(found, urls::param_view(name, value));
    } else {
      query.append(urls::param_view(name, value));
    }
  }
  return Text(url.buffer());
}

absl::StatusOr<std::string> ResolveUrl(std::string_view base_text, std::string_view reference) {
  SLUICE_ASSIGN_OR_RETURN(const urls::url base, Parse(base_text));
  auto parsed = urls::parse_uri_reference(boost::core::string_view(reference.data(), reference.size()));
  if (!parsed) return Bad(reference, "neither a URL nor a path");
  urls::url resolved;
  if (!urls::resolve(base, *parsed, resolved)) return Bad(reference, "it does not resolve");
  return Text(resolved.buffer());
}

}  // namespace sluice::connector::http
