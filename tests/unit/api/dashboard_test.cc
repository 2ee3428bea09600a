// The page at `/`: what comes with it, and what is not in it.
#include <algorithm>
#include <regex>

#include "coordinator/dashboard/dashboard_page.h"
#include "tests/unit/api/coordinator_fixture.h"
#include "tests/unit/api/raw_connection.h"

namespace tutti {
namespace {

using test::RawConnection;
using test::RunningCoordinator;

struct Page {
  std::string head;
  std::string body;
};

Page page_of(RunningCoordinator& coordinator, const std::string& more = "") {
  RawConnection connection(coordinator.url());
  connection.say("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + more + "\r\n");
  const std::string all = connection.read_to_end();
  const std::size_t end = all.find("\r\n\r\n");
  REQUIRE(end != std::string::npos);
  return {all.substr(0, end + 2), all.substr(end + 4)};
}

std::string header(const Page& page, const std::string& name) {
  const std::size_t at = page.head.find("\r\n" + name + ": ");
  if (at == std::string::npos) return "";
  const std::size_t begin = at + name.size() + 4;
  return page.head.substr(begin, page.head.find("\r\n", begin) - begin);
}

std::string between(const std::string& text, const std::string& before, char after) {
  const std::size_t at = text.find(before);
  if (at == std::string::npos) return "";
  return text.substr(at + before.size(), text.find(after, at + before.size()) - at - before.size());
}

TEST_CASE("dashboard: anyone may have the page, and its policy lets only its own script run") {
  const test::TemporaryFolder folder;
  RunningCoordinator coordinator(folder.path());
  const Page page = page_of(coordinator);
  CHECK(page.head.starts_with("HTTP/1.1 200"));
  CHECK(header(page, "Content-Type") == "text/html; charset=utf-8");
  CHECK(header(page, "Cache-Control") == "no-store");
  CHECK(header(page, "Referrer-Policy") == "no-referrer");
  CHECK(header(page, "X-Content-Type-Options") == "nosniff");
  const std::string policy = header(page, "Content-Security-Policy");
  for (const char* part : {"default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'",
                           "base-uri 'none'", "require-trusted-types-for 'script'"}) {
    INFO(part);
    CHECK(policy.find(part) != std::string::npos);
  }
  CHECK(policy.find("unsafe") == std::string::npos);
  const std::string nonce = between(policy, "script-src 'nonce-", '\'');
  CHECK(nonce.size() == 32);
  CHECK(page.body.find("<script nonce=\"" + nonce + "\">") != std::string::npos);
  CHECK(page.body.find("<style nonce=\"" + nonce + "\">") != std::string::npos);
  CHECK(page.body.find("NONCE") == std::string::npos);
  CHECK(page_of(coordinator).body != page.body);  // each answer has its own
}

TEST_CASE("dashboard: nothing of the cluster is in it, whoever asks, and it needs nobody else") {
  const test::TemporaryFolder folder;
  RunningCoordinator coordinator(folder.path());
  const std::string token = coordinator.token();
  const Page page = page_of(coordinator, "Authorization: Bearer " + token + "\r\n");
  CHECK((page.head + page.body).find(token) == std::string::npos);
  const std::string text(dashboard::kPage);
  CHECK(text.size() > 20'000);
  CHECK(text.find("@STYLE@") == std::string::npos);
  CHECK(text.find("@SCRIPT@") == std::string::npos);
  const std::regex others(R"((?:src|href|action)\s*=\s*["']?(?:https?:)?//|@import|url\()");
  CHECK_FALSE(std::regex_search(text, others));
}

TEST_CASE("dashboard: the script makes no markup out of text and puts no token into an address") {
  const std::string text(dashboard::kPage);
  for (const char* sink :
       {"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function",
        "DOMParser", "srcdoc", "EventSource(", "localStorage", "document.cookie", "javascript:"}) {
    INFO(sink);
    CHECK(text.find(sink) == std::string::npos);
  }
  // One place sends the token, as a header; the others keep it and forget it.
  const std::regex uses(R"(token\(\))");
  const auto count = std::distance(std::sregex_iterator(text.begin(), text.end(), uses), {});
  CHECK(count == 4);
  CHECK(text.find("Authorization: `Bearer ${token()}`") != std::string::npos);
}

TEST_CASE("dashboard: only `/` is the page; what is beside it still needs a token") {
  const test::TemporaryFolder folder;
  RunningCoordinator coordinator(folder.path());
  for (const char* target : {"/index.html", "//", "/api/v1/whoami"}) {
    RawConnection connection(coordinator.url());
    connection.say(std::string("GET ") + target +
                   " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    INFO(target);
    CHECK(connection.read_to_end().starts_with("HTTP/1.1 401"));
  }
}

}  // namespace
}  // namespace tutti
