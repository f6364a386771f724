// Answers of an API, cut into pages under every way to go on to the next one, and asked for again with what they gave.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "common/check.h"
#include "connector/http/headers.h"
#include "connector/source/http_page.h"

using namespace sluice::connector;

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
