#include "coordinator/dashboard/dashboard_route.h"

#include <string>
#include <string_view>

#include "coordinator/dashboard/dashboard_page.h"
#include "protocol/base/secret.h"

namespace tutti::dashboard {

namespace asio = boost::asio;

namespace {

std::string page_with(std::string_view nonce) {
  constexpr std::string_view kMark = "NONCE";
  std::string out;
  out.reserve(kPage.size() + 2 * nonce.size());
  std::string_view rest = kPage;
  for (std::size_t at = rest.find(kMark); at != rest.npos; at = rest.find(kMark)) {
    out.append(rest.substr(0, at)).append(nonce);
    rest.remove_prefix(at + kMark.size());
  }
  return out.append(rest);
}

// Nothing runs but the page's own script, it speaks to this coordinator alone, and markup that is
// made from strings is refused.
std::string policy_with(const std::string& nonce) {
  return "default-src 'none'; script-src 'nonce-" + nonce + "'; style-src 'nonce-" + nonce +
         "'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
         "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";
}

// The page holds nothing of the cluster, so anyone may have it: it asks for a token and reads the
// API with it like any other client.
asio::awaitable<api::Answer> page(const api::Call&) {
  const std::string nonce = random_hex(16);
  api::Answer answer;
  answer.content_type = "text/html; charset=utf-8";
  answer.headers = {{"Content-Security-Policy", policy_with(nonce)},
                    {"Cache-Control", "no-store"},
                    {"Referrer-Policy", "no-referrer"},
                    {"X-Content-Type-Options", "nosniff"}};
  answer.body = page_with(nonce);
  co_return answer;
}

}  // namespace

std::vector<api::Route> routes() {
  return {{"GET", "/", api::Role::anyone, [](const api::Call& call) { return page(call); }}};
}

}  // namespace tutti::dashboard
