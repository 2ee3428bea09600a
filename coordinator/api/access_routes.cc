// Tokens and the audit: /api/v1/tokens, /api/v1/audit, /api/v1/whoami.
#include <boost/json/serialize.hpp>

#include <boost/describe/enum_to_string.hpp>

#include "coordinator/api/ask.h"
#include "coordinator/api/bodies/change_bodies.h"
#include "coordinator/api/changes.h"
#include "coordinator/api/cluster_routes.h"
#include "protocol/base/clock.h"
#include "protocol/base/secret.h"

namespace tutti::api {

namespace asio = boost::asio;
namespace json = boost::json;
using coordinator::AccessKind;
using coordinator::AccessRecord;

namespace {

constexpr std::size_t kSecretBytes = 24;
constexpr std::uint32_t kAuditPage = 500;

json::object json_of(const AccessRecord& record) {
  json::object out{{"id", record.id},
                   {"kind", boost::describe::enum_to_string(record.kind, "unknown")},
                   {"user", record.user},
                   {"role", nullptr},
                   {"made_by", record.made_by},
                   {"made_unix_ms", record.made_unix_ms},
                   {"expires_unix_ms", nullptr}};
  if (record.kind == AccessKind::api) out["role"] = coordinator::name_of(record.role);
  if (record.expires_unix_ms != 0) out["expires_unix_ms"] = record.expires_unix_ms;
  return out;
}

json::object json_of(const coordinator::AuditRecord& record) {
  return {{"seq", record.seq},       {"unix_ms", record.unix_ms}, {"user", record.user},
          {"token", record.token},   {"from", record.from},       {"action", record.action},
          {"target", record.target}, {"detail", record.detail}};
}

class AccessRoutes {
 public:
  explicit AccessRoutes(const ClusterParts& parts) : parts_(parts) {}

  asio::awaitable<Answer> create(const Call& call) const {
    const Result<coordinator::TokenWish> wish = parse_token(call, wall_now().unix_ms);
    if (!wish) co_return error_answer(wish.error());
    Result<coordinator::MadeToken> made =
        parts_.cluster.access().make(*wish, random_hex(kSecretBytes), wall_now().unix_ms);
    if (!made) co_return error_answer(made.error());
    json::object out = json_of(made->change.record);
    out["token"] = made->token;
    const std::string detail =
        std::string(wish->kind == AccessKind::join ? "join" : coordinator::name_of(wish->role)) +
        " for " + wish->user;
    coordinator::Caller caller = call.caller("token create", "", detail);
    const auto done = co_await apply(std::move(made->change), std::move(caller));
    if (std::holds_alternative<Error>(done)) co_return answer_of(done);
    co_return json_answer(json::serialize(out));
  }

  asio::awaitable<Answer> revoke(const Call& call) const {
    const auto record = parts_.cluster.access().find(call.job.value);
    if (!record) {
      // Number 0 is that of the state folder, which has no record.
      co_return error_answer(
          {ErrorCode::not_found,
           call.job ? "there is no token " + to_string(call.job)
                    : std::string("the state folder's own token ends with its file `token` and a "
                                  "restart of the coordinator")});
    }
    coordinator::AccessChange removal{*record, true};
    coordinator::Caller caller = call.caller("token revoke", "", "of " + record->user);
    const auto done = co_await apply(std::move(removal), std::move(caller));
    if (std::holds_alternative<Error>(done)) co_return answer_of(done);
    co_return json_answer(json::serialize(json_of(*record)));
  }

  asio::awaitable<Answer> list(const Call&) const {
    json::array out;
    for (const AccessRecord& record : parts_.cluster.access().list())
      out.push_back(json_of(record));
    co_return json_answer(json::serialize(json::value{{"tokens", std::move(out)}}));
  }

  asio::awaitable<Answer> rotate(const Call& call) const {
    const Result<std::uint64_t> seconds = parse_rotation(call);
    if (!seconds) co_return error_answer(seconds.error());
    auto begin = [cluster = &parts_.cluster, overlap = std::chrono::seconds(*seconds),
                  by = call.caller("keys rotate", "coordinator", "")](auto reply) {
      cluster->rotate_keys(overlap, by, reply);
    };
    co_return answer_of(co_await ask_later<coordinator::AnswerBody>(parts_.cluster.host(), begin));
  }

  asio::awaitable<Answer> who(const Call& call) const {
    co_return json_answer(json::serialize(json::value{{"user", call.user},
                                                      {"role", coordinator::name_of(call.role)},
                                                      {"token", call.token},
                                                      {"now_unix_ms", wall_now().unix_ms}}));
  }

  asio::awaitable<Answer> audit(const Call& call) const {
    const Result<std::uint64_t> after = call.number("after", 0);
    if (!after) co_return error_answer(after.error());
    using Page = Result<json::object>;
    const Page page = co_await ask<Page>(
        parts_.cluster.host(), [cluster = &parts_.cluster, from = *after]() -> Page {
          static_cast<void>(cluster->settled_state());
          const auto records = cluster->ledger().audit(from, kAuditPage);
          if (!records) return records.error();
          const auto first = cluster->ledger().first_audit();
          if (!first) return first.error();
          json::array items;
          if (*first > from + 1) {
            items.push_back(json::object{{"seq", *first - 1},
                                         {"action", "gap"},
                                         {"detail", "changes up to here are not kept any more"}});
          }
          for (const auto& record : *records) items.push_back(json_of(record));
          const std::uint64_t next = records->empty() ? from : records->back().seq;
          return json::object{
              {"changes", std::move(items)}, {"next", next}, {"end", records->size() < kAuditPage}};
        });
    if (!page) co_return error_answer(page.error());
    co_return json_answer(json::serialize(*page));
  }

 private:
  asio::awaitable<coordinator::AnswerBody> apply(coordinator::AccessChange change,
                                                 coordinator::Caller caller) const {
    auto begin = [cluster = &parts_.cluster, wanted = std::move(change), by = std::move(caller)](
                     auto reply) mutable { cluster->change_access(std::move(wanted), by, reply); };
    co_return co_await ask_later<coordinator::AnswerBody>(parts_.cluster.host(), begin);
  }

  ClusterParts parts_;
};

}  // namespace

std::vector<Route> access_routes(const ClusterParts& parts) {
  const auto routes = std::make_shared<const AccessRoutes>(parts);
  return {
      {"GET", "/api/v1/tokens", Role::admin,
       [routes](const Call& call) { return routes->list(call); }},
      {"POST", "/api/v1/tokens", Role::admin,
       [routes](const Call& call) { return routes->create(call); }},
      {"POST", "/api/v1/tokens/ID/revoke", Role::admin,
       [routes](const Call& call) { return routes->revoke(call); }},
      {"POST", "/api/v1/keys/rotate", Role::admin,
       [routes](const Call& call) { return routes->rotate(call); }},
      {"GET", "/api/v1/audit", Role::admin,
       [routes](const Call& call) { return routes->audit(call); }},
      {"GET", "/api/v1/whoami", Role::viewer,
       [routes](const Call& call) { return routes->who(call); }},
  };
}

}  // namespace tutti::api
