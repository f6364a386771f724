// Answers of an API: unpacked, cut into pages under every way to go on to the next one, and asked for again with what
// they gave; and whatever comes as a URL.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "common/check.h"
#include "connector/http/gzip.h"
#include "connector/http/headers.h"
#include "connector/http/url.h"
#include "connector/source/http_page.h"

using namespace sluice::connector;

namespace {

constexpr int64_t kBodyBytesMax = 1 << 16;

// What a URL was taken apart into means the same when it is put together again.
void TryUrl(const std::string& text) {
  const auto url = http::ParseUrl(text);
  if (!url.ok()) return;
  const auto again = http::ParseUrl(url->Origin() + url->target);
  SLUICE_CHECK(again.ok() && again->Origin() == url->Origin() && again->target == url->target)
      << text << " is " << url->Origin() << " " << url->target;
  SLUICE_CHECK(url->ForMessages().find('?') == std::string::npos) << "a query in a message";
  const auto with = http::WithParams(text, {{"limit", "2"}, {"a&b", "c d"}});
  SLUICE_CHECK(!with.ok() || http::ParseUrl(*with).ok()) << *with;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t line = std::min(text.find('\n'), text.size());
  const std::string header(text.substr(0, line));
  const std::string body(text.substr(std::min(line + 1, text.size())));

  const absl::Time now = absl::FromUnixSeconds(1'700'000'000);
  if (const auto wait = http::ParseRetryAfter(header, now)) {
    SLUICE_CHECK(*wait >= absl::ZeroDuration()) << "a wait that is over before it began";
  }
  SLUICE_CHECK(header.find(http::NextLink(header)) != std::string::npos) << "a link that nobody wrote";

  for (const std::string_view packed : {text, std::string_view(body)}) {
    const auto plain = http::Gunzip(packed, kBodyBytesMax);
    SLUICE_CHECK(!plain.ok() || plain->size() <= kBodyBytesMax) << "more than was allowed";
  }
  TryUrl(header);
  const auto resolved = http::ResolveUrl("https://api.example/v1/items?page=1", header);
  if (resolved.ok()) TryUrl(*resolved);

  HttpSourceConfig config;
  config.url = "http://api.example/items?limit=2";
  config.records = "/r";
  config.slices = {{.name = "0", .params = {{"a", "b c"}}}};
  config.incremental = IncrementalConfig{.field = "/t", .param = "since", .start = "1", .format = {}};
  const Pagination ways[] = {std::monostate(),
                             PagePagination{},
                             OffsetPagination{},
                             CursorPagination{.param = "after", .from = "/n"},
                             NextUrlPagination{.from = "/n"},
                             LinkHeaderPagination{}};
  for (const Pagination& way : ways) {
    config.pagination = way;
    const auto page =
        ReadPage(config, "/k", {}, {.status = 200, .headers = {{"link", header}}, .body = body, .url = config.url});
    if (!page.ok() || page->last) continue;
    SLUICE_CHECK(!page->next.empty()) << "a page to come without a name";
    std::string from;
    for (const PageRecord& record : page->records) from = record.cursor;
    (void)BuildPageRequest(config, config.slices[0], {.token = page->next, .from = from}).ok();
  }
  return 0;
}
