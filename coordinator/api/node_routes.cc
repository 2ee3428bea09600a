// Nodes: /api/v1/nodes.
#include <boost/json/serialize.hpp>

#include "coordinator/api/ask.h"
#include "coordinator/api/cluster_routes.h"
#include "coordinator/api/json_views.h"
#include "coordinator/api/request_body.h"

namespace tutti::api {

namespace asio = boost::asio;
namespace json = boost::json;

namespace {

constexpr std::uint64_t kDeadlineMsMax = 30ULL * 24 * 3600 * 1000;

class NodeRoutes {
 public:
  explicit NodeRoutes(const ClusterParts& parts) : parts_(parts) {}

  asio::awaitable<Answer> nodes(const Call&) const {
    using Nodes = Result<std::vector<coordinator::NodeView>>;
    const Nodes found = co_await ask<Nodes>(parts_.cluster.host(), [cluster = &parts_.cluster] {
      return Nodes(cluster->settled_state().nodes());
    });
    if (!found) co_return error_answer(found.error());
    json::array out;
    for (const auto& node : *found) out.push_back(json_of(node));
    co_return json_answer(json::serialize(json::value{{"nodes", std::move(out)}}));
  }

  asio::awaitable<Answer> drain(const Call& call) const {
    const Result<json::object> body = parse_body(call);
    if (!body) co_return error_answer(body.error());
    const Result<std::string> reason = text_of(*body, "reason", kReasonBytesMax);
    if (!reason) co_return error_answer(reason.error());
    if (reason->empty()) co_return error_answer(wrong("a drain needs a reason"));
    const Result<std::uint64_t> deadline_ms = number_or(*body, "deadline_ms", 0, kDeadlineMsMax);
    if (!deadline_ms) co_return error_answer(deadline_ms.error());
    coordinator::DrainNode input;
    input.node = call.name;
    input.reason = *reason;
    input.deadline_ms = *deadline_ms;
    coordinator::Caller caller = call.caller("drain", "node " + call.name, *reason);
    co_return answer_of(co_await change(parts_, std::move(input), std::move(caller)));
  }

  asio::awaitable<Answer> undrain(const Call& call) const {
    coordinator::UndrainNode input;
    input.node = call.name;
    coordinator::Caller caller = call.caller("undrain", "node " + call.name, "");
    co_return answer_of(co_await change(parts_, std::move(input), std::move(caller)));
  }

 private:
  ClusterParts parts_;
};

}  // namespace

std::vector<Route> node_routes(const ClusterParts& parts) {
  const auto routes = std::make_shared<const NodeRoutes>(parts);
  return {
      {"GET", "/api/v1/nodes", Role::viewer,
       [routes](const Call& call) { return routes->nodes(call); }},
      {"POST", "/api/v1/nodes/NAME/drain", Role::admin,
       [routes](const Call& call) { return routes->drain(call); }},
      {"POST", "/api/v1/nodes/NAME/undrain", Role::admin,
       [routes](const Call& call) { return routes->undrain(call); }},
  };
}

}  // namespace tutti::api
