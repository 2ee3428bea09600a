#include <fmt/format.h>

#include <boost/describe/enum_to_string.hpp>

#include <iterator>
#include <map>

#include "coordinator/api/ask.h"
#include "coordinator/api/cluster_routes.h"

namespace tutti::api {

namespace asio = boost::asio;

namespace {

void put(std::string& out, std::string_view name, std::string_view type, std::uint64_t value) {
  fmt::format_to(std::back_inserter(out), "# TYPE {0} {1}\n{0} {2}\n", name, type, value);
}

void put_state(std::string& out, coordinator::ClusterHost& cluster) {
  const coordinator::ClusterState& state = cluster.settled_state();
  std::map<std::string, std::uint64_t> jobs;
  for (const auto& job : state.jobs())
    ++jobs[boost::describe::enum_to_string(job.state, "unknown")];
  out += "# TYPE tutti_jobs gauge\n";
  for (const auto& [name, count] : jobs)
    fmt::format_to(std::back_inserter(out), "tutti_jobs{{state=\"{}\"}} {}\n", name, count);
  std::map<std::string, std::uint64_t> nodes;
  std::uint64_t slots = 0;
  std::uint64_t free_slots = 0;
  for (const auto& node : state.nodes()) {
    ++nodes[node.state];
    slots += node.slots;
    free_slots += node.free_slots;
  }
  out += "# TYPE tutti_nodes gauge\n";
  for (const auto& [name, count] : nodes)
    fmt::format_to(std::back_inserter(out), "tutti_nodes{{state=\"{}\"}} {}\n", name, count);
  put(out, "tutti_slots", "gauge", slots);
  put(out, "tutti_slots_free", "gauge", free_slots);
  const coordinator::ClusterCounters& counters = state.counters();
  put(out, "tutti_recoveries_total", "counter", counters.recoveries);
  put(out, "tutti_workers_lost_total", "counter", counters.workers_lost);
  put(out, "tutti_hellos_refused_total", "counter", counters.refused_hellos);
  put(out, "tutti_reports_stale_total", "counter", counters.stale_reports);
  put(out, "tutti_ledger_failing", "gauge", cluster.ledger_failing() ? 1 : 0);
}

void put_frames(std::string& out, coordinator::ClusterHost& cluster) {
  const wire::FrameCounters& frames = cluster.frame_counters();
  put(out, "tutti_frames_taken_total", "counter", frames.taken);
  out += "# TYPE tutti_frames_refused_total counter\n";
  const std::pair<std::string_view, std::uint64_t> causes[] = {
      {"truncated", frames.truncated},
      {"oversized", frames.oversized},
      {"bad_magic", frames.bad_magic},
      {"bad_version", frames.bad_version},
      {"unknown_kind", frames.unknown_kind},
      {"bad_body", frames.bad_body},
      {"stale_session", frames.stale_session + cluster.settled_state().counters().stale_frames},
  };
  for (const auto& [cause, count] : causes) {
    fmt::format_to(std::back_inserter(out), "tutti_frames_refused_total{{cause=\"{}\"}} {}\n",
                   cause, count);
  }
  const transport::EndpointCounters& endpoint = cluster.endpoint_counters();
  put(out, "tutti_control_accepted_total", "counter", endpoint.accepted);
  put(out, "tutti_control_connections_total", "counter", endpoint.connected);
  put(out, "tutti_control_disconnections_total", "counter", endpoint.disconnected);
  put(out, "tutti_control_handshakes_failed_total", "counter", endpoint.handshakes_failed);
  put(out, "tutti_control_frames_malformed_total", "counter", endpoint.malformed_in);
  put(out, "tutti_control_sends_refused_total", "counter", endpoint.refused_out);
}

asio::awaitable<Answer> metrics(const ClusterParts& parts) {
  const Result<std::string> text =
      co_await ask<Result<std::string>>(parts.cluster.host(), [cluster = &parts.cluster] {
        std::string out;
        put_state(out, *cluster);
        put_frames(out, *cluster);
        return Result<std::string>(std::move(out));
      });
  if (!text) co_return error_answer(text.error());
  Answer answer;
  answer.content_type = "text/plain; version=0.0.4";
  answer.body = *text + (parts.more_metrics ? parts.more_metrics() : std::string());
  co_return answer;
}

asio::awaitable<Answer> healthz() {
  Answer answer;
  answer.content_type = "text/plain";
  answer.body = "ok\n";
  co_return answer;
}

}  // namespace

std::vector<Route> metrics_routes(const ClusterParts& parts) {
  const auto shared = std::make_shared<const ClusterParts>(parts);
  return {
      {"GET", "/metrics", Role::viewer, [shared](const Call&) { return metrics(*shared); }},
      {"GET", "/healthz", Role::anyone, [](const Call&) { return healthz(); }},
  };
}

}  // namespace tutti::api
