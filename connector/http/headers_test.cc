#include "connector/http/headers.h"

#include <catch2/catch.hpp>

namespace sluice::connector::http {

TEST_CASE("The next link is found among others, however the header is written") {
  CHECK(NextLink("</a?page=2>; rel=next") == "/a?page=2");
  CHECK(NextLink("</1>; rel=\"prev\", </3>; rel=\"next\"") == "/3");
  CHECK(NextLink("</1>;rel=prev,</3>;rel=next,</9>;rel=last") == "/3");
  CHECK(NextLink("</a,b;c>; rel=next") == "/a,b;c");
  CHECK(NextLink("</a>; title=\"one, <two>; rel=prev\"; rel=\"next\"") == "/a");
  CHECK(NextLink("</a>; title=\"a \\\" , b\"; rel=next") == "/a");
  CHECK(NextLink("</a>; REL=\"Next\"") == "/a");
  CHECK(NextLink("</a>; rel=\"prev next\"") == "/a");
  CHECK(NextLink("</a> ; crossorigin ; rel = next") == "/a");
  CHECK(NextLink("garbage, </a>; rel=next") == "/a");
}

TEST_CASE("Where there is no next link none is made up") {
  CHECK(NextLink("").empty());
  CHECK(NextLink("</a>").empty());
  CHECK(NextLink("</a>; rel=nextish, </b>; rel=\"previous\"").empty());
  CHECK(NextLink("</a>; rel=prev; rel=next").empty());  // RFC 8288, 3.3: the first counts
  CHECK(NextLink("</a>; title=\"rel=next\"").empty());
  CHECK(NextLink("</a; rel=next").empty());
  CHECK(NextLink("</a>; rel=\"next").empty() == false);  // the end of the header ends the string
}

}  // namespace sluice::connector::http
