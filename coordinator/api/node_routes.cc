// Nodes: /api/v1/nodes.
#include <boost/json/serialize.hpp>

#include <iterator>
#include <string>
#include <utility>

#include "coordinator/api/ask.h"
#include "coordinator/api/bodies/change_bodies.h"
#include "coordinator/api/changes.h"
#include "coordinator/api/cluster_routes.h"
#include "coordinator/api/json_views.h"

namespace tutti::api {

namespace asio = boost::asio;
namespace json = boost::json;

namespace {

class NodeRoutes {
 public:
  explicit NodeRoutes(const ClusterParts& parts) : parts_(parts) {}

  asio::awaitable<Answer> nodes(const Call&) const {
    const auto found = co_await all_nodes(parts_.cluster);
    if (!found) co_return error_answer(found.error());
    json::array out;
    for (const auto& node : *found) out.push_back(json_of(node));
    co_return json_answer(json::serialize(json::value{{"nodes", std::move(out)}}));
  }

  asio::awaitable<Answer> drain(const Call& call) const {
    const Result<coordinator::DrainNode> input = parse_drain(call);
    if (!input) co_return error_answer(input.error());
    coordinator::Caller caller = call.caller("drain", "node " + call.name, input->reason);
    co_return answer_of(co_await change(parts_, *input, std::move(caller)));
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

asio::awaitable<Result<std::vector<coordinator::NodeView>>> all_nodes(
    coordinator::ClusterHost& cluster, std::size_t at_once) {
  using Nodes = Result<std::vector<coordinator::NodeView>>;
  std::vector<coordinator::NodeView> out;
  while (true) {
    auto read = [&cluster, at_once, after = out.empty() ? std::string() : out.back().name] {
      return Nodes(cluster.settled_state().nodes(after, at_once));
    };
    Nodes some = co_await ask<Nodes>(cluster.host(), read);
    if (!some) co_return some.error();
    const bool last = some->size() < at_once;
    out.insert(out.end(), std::make_move_iterator(some->begin()),
               std::make_move_iterator(some->end()));
    if (last) co_return out;
  }
}

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
