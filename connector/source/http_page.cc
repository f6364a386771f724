#include "connector/source/http_page.h"

#include <charconv>
#include <utility>

#include "common/status_macros.h"
#include "common/text.h"
#include "connector/http/headers.h"
#include "connector/http/url.h"
#include "connector/messages.h"
#include "connector/source/json_text.h"
#include "connector/source/moment.h"

namespace sluice::connector {
namespace {

constexpr size_t kExcerptBytes = 80;

/// Text that names the page after this one; empty for what means "none".
std::string TokenOf(const std::optional<JsonValue>& value) {
  if (!value || value->kind == JsonValue::Kind::kNull || value->raw == "false") return {};
  return value->Text();
}

absl::StatusOr<int64_t> NumberOf(const std::string& token, int64_t start) {
  if (token.empty()) return start;
  int64_t number = 0;
  const auto [end, error] = std::from_chars(token.data(), token.data() + token.size(), number);
  if (error != std::errc() || end != token.data() + token.size()) {
    return absl::FailedPreconditionError(
        Cat("the position in the topic says '", token, "', which is no page number: was the pagination changed?"));
  }
  return number;
}

absl::StatusOr<std::string> SameOrigin(const HttpSourceConfig& config, const std::string& url) {
  SLUICE_ASSIGN_OR_RETURN(const http::Url configured, http::ParseUrl(config.url));
  SLUICE_ASSIGN_OR_RETURN(const http::Url next, http::ParseUrl(url));
  if (configured.Origin() != next.Origin()) {
    return absl::FailedPreconditionError(
        Cat("the next page is at ", next.Origin(), ", but the source may only ask ", configured.Origin()));
  }
  return url;
}

absl::Status NoArray(const HttpSourceConfig& config, const JsonValue& document, const std::optional<JsonValue>& found) {
  const std::string what =
      found ? Cat("there is no array but ", Excerpt(found->raw, config.secrets, kExcerptBytes)) : "there is nothing";
  return absl::InvalidArgumentError(Cat(what, " at `records: ", config.records.empty() ? "\"\"" : config.records,
                                        "` in the answer, which begins with '",
                                        Excerpt(document.raw, config.secrets, kExcerptBytes), "'"));
}

struct NextPage {
  std::string token;
  bool last = true;
};

absl::StatusOr<NextPage> FollowUrl(const HttpSourceConfig& config, const http::Response& response,
                                   const std::string& reference) {
  if (reference.empty()) return NextPage{};
  SLUICE_ASSIGN_OR_RETURN(const std::string url, http::ResolveUrl(response.url, reference));
  SLUICE_ASSIGN_OR_RETURN(std::string allowed, SameOrigin(config, url));
  return NextPage{.token = std::move(allowed), .last = false};
}

absl::StatusOr<NextPage> FindNext(const HttpSourceConfig& config, const PageAsk& ask, const http::Response& response,
                                  const JsonValue& document, size_t records) {
  NextPage next;
  if (const auto* page = std::get_if<PagePagination>(&config.pagination)) {
    SLUICE_ASSIGN_OR_RETURN(const int64_t number, NumberOf(ask.token, page->start));
    next = {.token = std::to_string(number + 1), .last = records == 0};
  } else if (const auto* offset = std::get_if<OffsetPagination>(&config.pagination)) {
    SLUICE_ASSIGN_OR_RETURN(const int64_t number, NumberOf(ask.token, offset->start));
    next = {.token = std::to_string(number + static_cast<int64_t>(records)), .last = records == 0};
  } else if (const auto* cursor = std::get_if<CursorPagination>(&config.pagination)) {
    next.token = TokenOf(At(document, cursor->from));
    next.last = next.token.empty();
  } else if (const auto* url = std::get_if<NextUrlPagination>(&config.pagination)) {
    SLUICE_ASSIGN_OR_RETURN(next, FollowUrl(config, response, TokenOf(At(document, url->from))));
  } else if (std::holds_alternative<LinkHeaderPagination>(config.pagination)) {
    std::string target;
    for (const auto& [name, value] : response.headers) {
      if (name == "link" && target.empty()) target = http::NextLink(value);
    }
    SLUICE_ASSIGN_OR_RETURN(next, FollowUrl(config, response, target));
  }
  if (!next.last && next.token == ask.token) {
    return absl::InvalidArgumentError("the page names itself as the page after it");
  }
  if (next.last) next.token.clear();
  return next;
}

std::optional<std::string> KeyOf(const JsonValue& record, const std::string& pointer) {
  const auto value = At(record, pointer);
  if (!value || value->kind == JsonValue::Kind::kNull) return std::nullopt;
  return value->Text();
}

std::string CursorOf(const JsonValue& record, const std::string& pointer) {
  const auto value = At(record, pointer);
  return value && IsCursorValue(value->raw) ? std::string(value->raw) : std::string();
}

absl::StatusOr<std::string> CursorParam(const IncrementalConfig& incremental, const std::string& from) {
  IncrementalConfig::Format format = incremental.format;
  // `start: 2026-01-01T00:00:00Z` beside a field that counts milliseconds: go on in the form that `start` shows.
  const bool number = from.front() != '"';
  if (format == IncrementalConfig::Format::kAsIs && number && CursorValueOfStart(incremental.start).front() == '"' &&
      !incremental.start.empty()) {
    format = IncrementalConfig::Format::kRfc3339;
  }
  return FormatCursorValue(from, format);
}

}  // namespace

absl::StatusOr<http::Request> BuildPageRequest(const HttpSourceConfig& config, const SliceConfig& slice,
                                               const PageAsk& ask) {
  http::Request request{.post = config.method == HttpSourceConfig::Method::kPost, .url = {}, .headers = {}, .body = {}};
  for (const auto& [name, value] : config.headers) request.headers.emplace_back(name, value.Reveal());
  request.secrets = config.secrets;
  if (request.post) request.body = config.body.Reveal();

  const bool follows_url = std::holds_alternative<NextUrlPagination>(config.pagination) ||
                           std::holds_alternative<LinkHeaderPagination>(config.pagination);
  if (follows_url && !ask.token.empty()) {
    SLUICE_ASSIGN_OR_RETURN(request.url, SameOrigin(config, ask.token));
    return request;
  }
  http::Params params;
  for (const auto& [name, value] : config.params) params.emplace_back(name, value.Reveal());
  for (const auto& [name, value] : slice.params) params.emplace_back(name, value);
  if (config.incremental && !ask.from.empty()) {
    SLUICE_ASSIGN_OR_RETURN(std::string value, CursorParam(*config.incremental, ask.from));
    params.emplace_back(config.incremental->param, std::move(value));
  }
  if (const auto* page = std::get_if<PagePagination>(&config.pagination)) {
    SLUICE_ASSIGN_OR_RETURN(const int64_t number, NumberOf(ask.token, page->start));
    params.emplace_back(page->param, std::to_string(number));
  } else if (const auto* offset = std::get_if<OffsetPagination>(&config.pagination)) {
    SLUICE_ASSIGN_OR_RETURN(const int64_t number, NumberOf(ask.token, offset->start));
    params.emplace_back(offset->param, std::to_string(number));
  } else if (const auto* cursor = std::get_if<CursorPagination>(&config.pagination)) {
    if (!ask.token.empty()) params.emplace_back(cursor->param, ask.token);
  }
  SLUICE_ASSIGN_OR_RETURN(request.url, http::WithParams(config.url, params));
  return request;
}

absl::StatusOr<Page> ReadPage(const HttpSourceConfig& config, const std::optional<std::string>& key_pointer,
                              const PageAsk& ask, const http::Response& response) {
  const absl::StatusOr<JsonDocument> document = JsonDocument::Parse(response.body);
  if (!document.ok()) {
    return absl::DataLossError(Cat(Message(document.status()), "; it begins with '",
                                   Excerpt(response.body, config.secrets, kExcerptBytes), "'"));
  }
  const std::optional<JsonValue> array = At(document->root(), config.records);
  if (!array || array->kind != JsonValue::Kind::kArray) return NoArray(config, document->root(), array);
  Page page;
  for (const JsonValue& element : Elements(*array)) {
    PageRecord record{.value = std::string(element.raw), .key = std::nullopt, .cursor = {}};
    if (key_pointer) record.key = KeyOf(element, *key_pointer);
    if (config.incremental) record.cursor = CursorOf(element, config.incremental->field);
    page.records.push_back(std::move(record));
  }
  SLUICE_ASSIGN_OR_RETURN(NextPage next, FindNext(config, ask, response, document->root(), page.records.size()));
  page.next = std::move(next.token);
  page.last = next.last;
  return page;
}

}  // namespace sluice::connector
