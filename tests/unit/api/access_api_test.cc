#include <boost/describe/enumerators.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/mp11/algorithm.hpp>

#include <fstream>
#include <iterator>
#include <map>
#include <set>

#include "coordinator/api/cluster_routes.h"
#include "coordinator/cluster/cluster_events.h"
#include "tests/unit/api/coordinator_fixture.h"

namespace tutti {
namespace {

using api::HttpAnswer;
using test::RunningCoordinator;

boost::json::value json_in(const HttpAnswer& answer) {
  boost::system::error_code failure;
  boost::json::value value = boost::json::parse(answer.body, failure);
  INFO(answer.body);
  REQUIRE_FALSE(failure);
  return value;
}

struct Token {
  std::uint64_t id = 0;
  std::string text;
};

Token make_token(RunningCoordinator& coordinator, const std::string& user, const std::string& role,
                 const std::string& more = "") {
  const auto made = json_in(
      coordinator.ask("POST", "/api/v1/tokens",
                      R"({"user": ")" + user + R"(", "role": ")" + role + '"' + more + "}"));
  return {made.at("id").to_number<std::uint64_t>(), std::string(made.at("token").as_string())};
}

HttpAnswer ask_as(RunningCoordinator& coordinator, const Token& token, const std::string& method,
                  const std::string& target, const std::string& body = "") {
  auto client = *api::HttpClient::connect_to({.url = coordinator.url(), .token = token.text});
  auto answer = client->request({.method = method, .target = target, .body = body});
  REQUIRE(answer.ok());
  return *answer;
}

const std::string kSpec = R"({"spec": "name: hello\nkind: run\ncommand: [echo, hi]\n"})";

struct DocumentedRoute {
  std::string method;
  std::string path;
  std::string role;
};

// The rows of the table in coordinator/api/README.md: | `METHOD PATH` | role | ...
std::vector<DocumentedRoute> documented_routes() {
  std::vector<DocumentedRoute> out;
  std::ifstream file("coordinator/api/README.md");
  std::string line;
  while (std::getline(file, line)) {
    if (!line.starts_with("| `")) continue;
    const std::size_t role_at = line.find(" | ");
    const std::string role = line.substr(role_at + 3, line.find(" | ", role_at + 3) - role_at - 3);
    std::string names = line.substr(2, role_at - 2);
    while (true) {  // `GET /a`, `GET /b`
      const std::size_t begin = names.find('`');
      if (begin == std::string::npos) break;
      const std::size_t end = names.find('`', begin + 1);
      const std::string name = names.substr(begin + 1, end - begin - 1);
      const std::size_t space = name.find(' ');
      if (space != std::string::npos)
        out.push_back({name.substr(0, space), name.substr(space + 1), role});
      names = names.substr(end + 1);
    }
  }
  return out;
}

TEST_CASE("access: every route of the README asks for the role that stands there, and no less") {
  const test::TemporaryFolder folder;
  RunningCoordinator coordinator(folder.path());
  const std::map<std::string, Token> tokens{{"viewer", make_token(coordinator, "vic", "viewer")},
                                            {"user", make_token(coordinator, "uma", "user")},
                                            {"admin", make_token(coordinator, "ada", "admin")}};
  const std::map<std::string, int> rank{{"anyone", 0}, {"viewer", 1}, {"user", 2}, {"admin", 3}};
  const auto routes = documented_routes();
  REQUIRE(routes.size() >= 20);
  for (const auto& route : routes) {
    INFO(route.method << " " << route.path << " needs " << route.role);
    REQUIRE(rank.contains(route.role));
    std::string target = route.path;
    for (const auto& [variable, value] :
         {std::pair<std::string, std::string>{"/ID", "/999999"},
          std::pair<std::string, std::string>{"/NAME", "/nobody"}}) {
      const std::size_t at = target.find(variable);
      if (at != std::string::npos) target.replace(at, variable.size(), value);
    }
    for (const auto& [role, token] : tokens) {
      INFO("as " << role);
      // A body that no route takes: nothing is changed by asking.
      const auto answer =
          ask_as(coordinator, token, route.method, target, route.method == "POST" ? "[]" : "");
      const bool allowed = rank.at(role) >= rank.at(route.role);
      CHECK((answer.status == 403) == !allowed);
      CHECK(answer.status != 401);
    }
  }
}

TEST_CASE("access: the README lists every route that is served") {
  const test::TemporaryFolder folder;
  RunningCoordinator coordinator(folder.path());
  std::set<std::string> documented;
  for (const auto& route : documented_routes()) documented.insert(route.method + " " + route.path);
  const auto served = coordinator.routes();
  REQUIRE(served.size() > 10);
  for (const std::string& route : served) {
    INFO(route);
    CHECK(documented.contains(route));
    documented.erase(route);
  }
  for (const std::string& left : documented) FAIL_CHECK("not served: " << left);
}

TEST_CASE("access: the README lists every kind of event") {
  std::ifstream file("coordinator/api/README.md");
  const std::string text(std::istreambuf_iterator<char>(file), {});
  const std::size_t from = text.find("- EVENT: ");
  REQUIRE(from != std::string::npos);
  const std::string row = text.substr(from, text.find("\n- ", from + 1) - from);
  boost::mp11::mp_for_each<boost::describe::describe_enumerators<coordinator::EventKind>>(
      [&](auto kind) {
        INFO(kind.name);
        CHECK(row.find("`" + std::string(kind.name) + "`") != std::string::npos);
      });
}

TEST_CASE("access: users change their own jobs only, admins all, and each change is on record") {
  const test::TemporaryFolder folder;
  RunningCoordinator coordinator(folder.path());
  const Token ann = make_token(coordinator, "ann", "user");
  const Token ben = make_token(coordinator, "ben", "user");
  REQUIRE(ask_as(coordinator, ann, "POST", "/api/v1/jobs", kSpec).status == 200);
  CHECK(json_in(coordinator.ask("GET", "/api/v1/jobs/1")).at("owner") == "ann");
  const auto refused = ask_as(coordinator, ben, "POST", "/api/v1/jobs/1/cancel", "{}");
  CHECK(refused.status == 403);
  CHECK(api::error_of(refused).message.find("belongs to ann") != std::string::npos);
  CHECK(
      ask_as(coordinator, ann, "POST", "/api/v1/jobs/1/cancel", R"({"reason": "enough"})").status ==
      200);
  CHECK(ask_as(coordinator, ann, "GET", "/api/v1/audit").status == 403);

  const auto audit = json_in(coordinator.ask("GET", "/api/v1/audit?after=2"));
  const auto& changes = audit.at("changes").as_array();
  REQUIRE(changes.size() == 4);
  CHECK(changes[0].at("action") == "submit");
  CHECK(changes[0].at("user") == "ann");
  CHECK(changes[0].at("target") == "job 1");
  CHECK(changes[0].at("from").as_string().starts_with("127.0.0.1:"));
  CHECK(changes[1].at("action") == "denied");
  CHECK(changes[2].at("action") == "cancel");
  CHECK(changes[2].at("detail") == "enough");
  CHECK(changes[3].at("action") == "denied");
  CHECK(audit.at("next") == 6);
}

TEST_CASE("access: who is refused for want of a role or of a job is on record, so often a minute") {
  const test::TemporaryFolder folder;
  RunningCoordinator coordinator(folder.path());
  const Token vic = make_token(coordinator, "vic", "viewer");
  const Token uma = make_token(coordinator, "uma", "user");
  REQUIRE(coordinator.ask("POST", "/api/v1/jobs", kSpec).status == 200);
  REQUIRE(ask_as(coordinator, vic, "POST", "/api/v1/jobs", kSpec).status == 403);
  REQUIRE(ask_as(coordinator, uma, "POST", "/api/v1/jobs/1/cancel", "{}").status == 403);
  const auto lines = [&] {
    return json_in(coordinator.ask("GET", "/api/v1/audit?after=3")).at("changes").as_array();
  };
  auto denied = lines();
  REQUIRE(denied.size() == 2);
  CHECK(denied[0].at("action") == "denied");
  CHECK(denied[0].at("user") == "vic");
  CHECK(denied[0].at("target") == "POST /api/v1/jobs");
  CHECK(denied[0].at("detail").as_string().find("needs the role user") != std::string::npos);
  CHECK(denied[1].at("user") == "uma");
  CHECK(denied[1].at("target") == "POST /api/v1/jobs/1/cancel");
  CHECK(denied[1].at("detail").as_string().find("belongs to admin") != std::string::npos);
  for (int i = 0; i < 100; ++i) ask_as(coordinator, vic, "GET", "/api/v1/audit");
  // The disk of the coordinator is not for them to fill.
  CHECK(lines().size() == 60);
}

TEST_CASE("access: a revoked token is good no more, and what was open with it ends") {
  const test::TemporaryFolder folder;
  RunningCoordinator coordinator(folder.path());
  const Token viewer = make_token(coordinator, "vic", "viewer");
  auto client = *api::HttpClient::connect_to({.url = coordinator.url(), .token = viewer.text});
  bool revoked = false;
  api::HttpRequest request;
  request.target = "/api/v1/events";
  request.accept = "text/event-stream";
  request.deadline = std::chrono::seconds(10);
  const auto ended = client->stream(request, [&](std::string_view) {
    if (!std::exchange(revoked, true)) {
      const auto done =
          coordinator.ask("POST", "/api/v1/tokens/" + std::to_string(viewer.id) + "/revoke", "{}");
      CHECK(done.status == 200);
    }
    return true;
  });
  CHECK(revoked);
  REQUIRE_FALSE(ended.ok());
  CHECK(ended.error().code == ErrorCode::unavailable);  // ended, not timed out
  CHECK(ask_as(coordinator, viewer, "GET", "/api/v1/jobs").status == 401);
  CHECK(coordinator.ask("POST", "/api/v1/tokens/77/revoke", "{}").status == 404);
}

TEST_CASE("access: tokens survive a restart, and only their hash is in the folder") {
  const test::TemporaryFolder folder;
  Token ann;
  {
    RunningCoordinator coordinator(folder.path());
    ann = make_token(coordinator, "ann", "user");
    CHECK(ask_as(coordinator, ann, "GET", "/api/v1/whoami").body.find("\"ann\"") !=
          std::string::npos);
  }
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder.path())) {
    if (!entry.is_regular_file()) continue;
    const auto content = read_file(entry.path());
    INFO(entry.path());
    REQUIRE(content.ok());
    CHECK(content->find(ann.text) == std::string::npos);
  }
  RunningCoordinator successor(folder.path());
  CHECK(ask_as(successor, ann, "GET", "/api/v1/jobs").status == 200);
  const auto tokens = json_in(successor.ask("GET", "/api/v1/tokens"));
  REQUIRE(tokens.at("tokens").as_array().size() == 1);
  CHECK(tokens.at("tokens").as_array()[0].at("role") == "user");
  CHECK(boost::json::serialize(tokens).find("hash") == std::string::npos);
}

TEST_CASE("access: what is wrong with a new token is said") {
  const test::TemporaryFolder folder;
  RunningCoordinator coordinator(folder.path());
  for (const char* body :
       {R"({"user": "a b"})", R"({"user": ""})", R"({"user": "a", "role": "king"})",
        R"({"user": "a", "kind": "worker"})", R"({"user": "a", "expires_s": -1})", "[]"}) {
    INFO(body);
    CHECK(coordinator.ask("POST", "/api/v1/tokens", body).status == 400);
  }
  CHECK(json_in(coordinator.ask("GET", "/api/v1/tokens")).at("tokens").as_array().empty());
}

TEST_CASE("access: a backup of the ledger comes over HTTP and is whole") {
  const test::TemporaryFolder folder;
  const test::TemporaryFolder other;
  RunningCoordinator coordinator(folder.path());
  REQUIRE(coordinator.ask("POST", "/api/v1/jobs", kSpec).status == 200);
  const auto answer = coordinator.ask("POST", "/api/v1/ledger/backup", "");
  CHECK(answer.status == 200);
  REQUIRE(write_file_atomically(other.path() / "copy", answer.body).ok());
  const auto summary = coordinator::restore_ledger(other.path() / "copy", other.path() / "state");
  REQUIRE(summary.ok());
  CHECK(summary->jobs == 1);
  std::size_t left = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path()))
    left += entry.path().filename().string().starts_with("ledger.backup");
  CHECK(left <= 1);  // gone as soon as the connection has let go of it
}

}  // namespace
}  // namespace tutti
