// tutti token create | revoke | list, keys rotate, audit: who may do what, and who did.
#include <fmt/core.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include <array>
#include <memory>
#include <string>

#include "ops/cli/client/connection.h"
#include "ops/cli/client/fields.h"
#include "ops/cli/text/table.h"
#include "ops/cli/verbs.h"
#include "protocol/spec/quantity.h"

namespace tutti::cli {

namespace {

struct TokenOptions {
  std::string user;
  std::string role = "user";
  std::string expires;
  bool join = false;
};

std::string time_or(const boost::json::value& object, std::string_view key,
                    std::string_view otherwise) {
  const std::int64_t unix_ms = whole_of(object, key);
  return unix_ms == 0 ? std::string(otherwise) : print_date(unix_ms);
}

int create(const TokenOptions& options, const Session& session) {
  boost::json::object body{{"user", options.user}, {"role", options.role}};
  if (options.join) body["kind"] = "join";
  if (!options.expires.empty()) {
    const auto ms = spec::parse_duration_ms(options.expires);
    if (!ms || *ms < 1000) {
      return fail(kUsage, "--expires must be a duration such as 12h or 30d, 1s or more");
    }
    body["expires_s"] = *ms / 1000;
  }
  Connection connection;
  const auto made = connection.api().post("/api/v1/tokens", body, Api::Repeat::never);
  if (!made) return fail(made.error());
  print(session.json() ? json_line(*made) : text_of(*made, "token") + '\n');
  if (session.json() || !session.out_is_terminal) return kDone;
  fail(kDone, fmt::format("token {} is shown this once; `tutti token revoke {}` ends it",
                          whole_of(*made, "id"), whole_of(*made, "id")));
  return kDone;
}

int revoke(std::uint64_t id, const Session& session) {
  Connection connection;
  const auto gone = connection.api().post(fmt::format("/api/v1/tokens/{}/revoke", id),
                                          boost::json::object{}, Api::Repeat::allowed);
  if (!gone) return fail(gone.error());
  print(session.json() ? json_line(*gone)
                       : fmt::format("token {} of {} is revoked\n", id, text_of(*gone, "user")));
  return kDone;
}

int list(const Session& session) {
  Connection connection;
  const auto answer = connection.api().get("/api/v1/tokens");
  if (!answer) return fail(answer.error());
  if (session.json()) {
    print(json_line(*answer));
    return kDone;
  }
  Table table(
      {{"TOKEN", Align::right}, {"KIND"}, {"USER"}, {"ROLE"}, {"MADE"}, {"BY"}, {"EXPIRES"}});
  table.add({"0", "api", "admin", "admin", "-", "-", "never (the state folder's)"});
  for (const auto& token : list_of(*answer, "tokens")) {
    const std::string role = text_of(token, "role");
    table.add({std::to_string(whole_of(token, "id")), text_of(token, "kind"),
               text_of(token, "user"), role.empty() ? "-" : role,
               time_or(token, "made_unix_ms", "-"), text_of(token, "made_by"),
               time_or(token, "expires_unix_ms", "never")});
  }
  print(table.print(session.out_is_terminal ? Paint::coloured : Paint::plain));
  return kDone;
}

int rotate(const std::string& overlap, const Session& session) {
  boost::json::object body;
  if (!overlap.empty()) {
    const auto ms = spec::parse_duration_ms(overlap);
    if (!ms || *ms < 1000) return fail(kUsage, "--overlap must be a duration of 1s or more");
    body["overlap_s"] = *ms / 1000;
  }
  Connection connection;
  const auto done = connection.api().post("/api/v1/keys/rotate", body, Api::Repeat::never);
  if (!done) return fail(done.error());
  print(session.json() ? json_line(*done)
                       : fmt::format("new keys are in use; the old ones are good for {} more\n",
                                     overlap.empty() ? "10m" : overlap));
  return kDone;
}

// Of fixed widths, since the pages come one after the other.
std::string audit_row(const std::string& number, const std::array<std::string, 6>& cells) {
  std::string line = fmt::format("{:>6}  {:<16}  {:<12}  {:<21}  {:<14}  {:<12}  {}", number,
                                 cells[0], cells[1], cells[2], cells[3], cells[4], cells[5]);
  line.erase(line.find_last_not_of(' ') + 1);
  return line + '\n';
}

int audit(std::uint64_t after, const Session& session) {
  Connection connection;
  bool titled = session.json();
  while (true) {
    const auto page = connection.api().get(fmt::format("/api/v1/audit?after={}", after));
    if (!page) return fail(page.error());
    for (const auto& change : list_of(*page, "changes")) {
      if (!titled)
        print(audit_row("CHANGE", {"WHEN", "USER", "FROM", "ACTION", "TARGET", "DETAIL"}));
      titled = true;
      print(session.json() ? json_line(change)
                           : audit_row(std::to_string(whole_of(change, "seq")),
                                       {time_or(change, "unix_ms", "-"), text_of(change, "user"),
                                        text_of(change, "from"), text_of(change, "action"),
                                        text_of(change, "target"), text_of(change, "detail")}));
    }
    after = static_cast<std::uint64_t>(whole_of(*page, "next"));
    if (flag_of(*page, "end")) return kDone;
  }
}

}  // namespace

Action declare_token_create(Arguments& arguments) {
  auto options = std::make_shared<TokenOptions>();
  arguments.word("USER", options->user, "whose it is; of a join token: what it is for");
  arguments.option("--role", options->role, "viewer, user or admin (default: user)");
  arguments.option("--expires", options->expires, "good for so long, as in 12h or 30d");
  arguments.flag("--join", options->join, "lets workers in instead (join.json's join_token)");
  return [options](Session& session) { return create(*options, session); };
}

Action declare_token_revoke(Arguments& arguments) {
  auto id = std::make_shared<std::uint64_t>();
  arguments.number("TOKEN", *id, "its number, as `tutti token list` shows it");
  return [id](Session& session) { return revoke(*id, session); };
}

Action declare_token_list(Arguments&) {
  return [](Session& session) { return list(session); };
}

Action declare_keys_rotate(Arguments& arguments) {
  auto overlap = std::make_shared<std::string>();
  arguments.option("--overlap", *overlap, "how long the old keys stay good (default: 10m)");
  arguments.epilogue(
      "Makes the coordinator's CURVE keys anew with no restart. Workers that are connected learn "
      "them\nat once; join.json is written anew for those to come.");
  return [overlap](Session& session) { return rotate(*overlap, session); };
}

Action declare_audit(Arguments& arguments) {
  auto after = std::make_shared<std::uint64_t>(0);
  arguments.option("--since", *after, "only changes behind this number");
  return [after](Session& session) { return audit(*after, session); };
}

}  // namespace tutti::cli
