// /metrics in Prometheus' text format, and /healthz. Series a job, a rank or a node are bounded:
// what is above the limit is in the totals only.
#include <unistd.h>

#include <boost/describe/enum_to_string.hpp>

#include <algorithm>
#include <fstream>
#include <map>

#include "coordinator/api/ask.h"
#include "coordinator/api/cluster_routes.h"
#include "coordinator/metrics/exposition.h"

namespace tutti::api {

namespace asio = boost::asio;
using coordinator::Exposition;
using coordinator::MetricKind;

namespace {

constexpr std::size_t kJobSeriesMax = 500;
constexpr std::size_t kRankSeriesMax = 2'000;
constexpr std::size_t kNodeSeriesMax = 1'000;

template <class Enum>
std::string label_of(Enum value) {
  return boost::describe::enum_to_string(value, "unknown");
}

void put_jobs(Exposition& out, coordinator::ClusterHost& cluster) {
  const std::int64_t oldest_ms = cluster.settled_state().oldest_queued_unix_ms();
  out.family("tutti_jobs", MetricKind::gauge, "Jobs in the history, by kind and state.");
  for (const auto& [key, count] : cluster.job_counts()) {
    out.sample({{"kind", key.first}, {"state", label_of(key.second)}}, static_cast<double>(count));
  }
  const auto age_ms = oldest_ms == 0 ? 0 : wall_now().unix_ms - oldest_ms;
  out.gauge("tutti_queue_age_seconds", static_cast<double>(std::max<std::int64_t>(0, age_ms)) / 1e3,
            "How long the job waits that has been queued for longest.");
}

void put_figures(Exposition& out, const coordinator::ClusterState& state,
                 const std::map<JobId, coordinator::StepFigures>& figures) {
  std::vector<std::pair<std::string, coordinator::StepFigures>> shown;
  for (const auto& [id, each] : figures) {
    const coordinator::JobRecord* job = state.find_job(id);
    const bool alive = job != nullptr && !coordinator::is_terminal(job->state);
    if (alive && shown.size() < kJobSeriesMax) shown.emplace_back(to_string(id), each);
  }
  const auto family = [&](std::string_view name, MetricKind kind, std::string_view help,
                          auto value_of) {
    out.family(name, kind, help);
    for (const auto& [job, each] : shown)
      out.sample({{"job", job}}, static_cast<double>(value_of(each)));
  };
  family("tutti_job_step", MetricKind::gauge, "Newest step recorded, of jobs that are not ended.",
         [](const auto& each) { return each.step; });
  family("tutti_job_loss", MetricKind::gauge, "Loss of that step.",
         [](const auto& each) { return each.loss; });
  family("tutti_job_gradient_norm", MetricKind::gauge, "Norm of its gradient.",
         [](const auto& each) { return each.grad_norm; });
  family("tutti_job_step_duration_seconds", MetricKind::gauge, "How long it took.",
         [](const auto& each) { return each.seconds; });
  family("tutti_job_tokens_total", MetricKind::counter,
         "Tokens of the steps recorded since this coordinator began.",
         [](const auto& each) { return each.tokens_total; });
}

void put_nodes(Exposition& out, const std::vector<coordinator::NodeView>& nodes) {
  std::map<std::string, std::uint64_t> by_state;
  std::uint64_t slots = 0;
  std::uint64_t free_slots = 0;
  for (const auto& node : nodes) {
    ++by_state[node.state];
    slots += node.slots;
    free_slots += node.free_slots;
  }
  out.family("tutti_nodes", MetricKind::gauge, "Nodes by state.");
  for (const auto& [state, count] : by_state)
    out.sample({{"state", state}}, static_cast<double>(count));
  out.gauge("tutti_slots", static_cast<double>(slots), "Slots of all nodes.");
  out.gauge("tutti_slots_free", static_cast<double>(free_slots), "Slots that nothing holds.");
  const std::size_t shown = std::min(nodes.size(), kNodeSeriesMax);
  out.family("tutti_node_info", MetricKind::gauge, "A node: its version.");
  for (std::size_t i = 0; i < shown; ++i)
    out.sample({{"node", nodes[i].name}, {"version", nodes[i].version}}, 1);
  out.family("tutti_node_ready", MetricKind::gauge, "1: a node takes work.");
  for (std::size_t i = 0; i < shown; ++i)
    out.sample({{"node", nodes[i].name}}, nodes[i].state == "ready" ? 1 : 0);
  out.family("tutti_node_slots_free", MetricKind::gauge, "Free slots by node.");
  for (std::size_t i = 0; i < shown; ++i)
    out.sample({{"node", nodes[i].name}}, static_cast<double>(nodes[i].free_slots));
}

// What drivers tell of devices; of a node that is away, nothing.
void put_devices(Exposition& out, const std::vector<coordinator::NodeView>& nodes) {
  struct Shown {
    const std::string* node;
    const wire::DeviceReading* reading;
    Exposition::Labels labels() const { return {{"node", *node}, {"device", reading->uuid}}; }
  };
  std::vector<Shown> shown;
  for (const auto& node : nodes) {
    for (const wire::DeviceReading& reading : node.readings) {
      if (shown.size() < kNodeSeriesMax) shown.push_back({&node.name, &reading});
    }
  }
  const auto gauge = [&](std::string_view name, std::string_view help, auto value_of) {
    out.family(name, MetricKind::gauge, help);
    for (const Shown& one : shown) {
      const auto value = static_cast<double>(value_of(*one.reading));
      if (value > 0) out.sample(one.labels(), value);
    }
  };
  gauge("tutti_device_temperature_celsius", "Temperature of a device.",
        [](const auto& reading) { return reading.temperature_celsius; });
  gauge("tutti_device_power_limit_watts", "Power that a device may take.",
        [](const auto& reading) { return reading.power_limit_watts; });
  gauge("tutti_device_memory_free_bytes", "Memory of a device that nobody holds.",
        [](const auto& reading) { return reading.memory_free_bytes; });
  out.family("tutti_device_throttled", MetricKind::gauge,
             "1: a device is slowed down, for this reason.");
  for (const Shown& one : shown) {
    for (const std::string& reason : one.reading->throttle_reasons) {
      auto labels = one.labels();
      labels.emplace_back("reason", reason);
      out.sample(labels, 1);
    }
  }
  out.family("tutti_device_links", MetricKind::gauge, "Active links of a device to another.");
  for (const Shown& one : shown) {
    for (const wire::DeviceLink& link : one.reading->links) {
      auto labels = one.labels();
      labels.emplace_back("peer", link.uuid);
      if (link.count > 0) out.sample(labels, link.count);
    }
  }
  out.family("tutti_device_link_bytes_per_second", MetricKind::gauge,
             "What a device copies to another in a second, as `tutti check --gpu` measured it.");
  for (const Shown& one : shown) {
    for (const wire::DeviceLink& link : one.reading->links) {
      auto labels = one.labels();
      labels.emplace_back("peer", link.uuid);
      if (link.mb_per_s > 0) out.sample(labels, 1e6 * link.mb_per_s);
    }
  }
}

// Of ranks one process each: one that is lost, or that another takes the place of, is counted by
// its phase alone.
void put_ranks(Exposition& out, const std::vector<coordinator::NodeView>& nodes) {
  std::vector<const coordinator::ProcessView*> shown;
  std::map<std::string, std::uint64_t> by_phase;
  for (const auto& node : nodes) {
    for (const auto& process : node.processes) {
      ++by_phase[process.phase];
      if (process.member && shown.size() < kRankSeriesMax) shown.push_back(&process);
    }
  }
  out.family("tutti_ranks", MetricKind::gauge, "Processes of ranks by phase.");
  for (const auto& [phase, count] : by_phase)
    out.sample({{"phase", phase}}, static_cast<double>(count));
  const auto labels = [](const coordinator::ProcessView& process) {
    return Exposition::Labels{{"job", to_string(process.job)},
                              {"rank", std::to_string(process.rank)}};
  };
  out.family("tutti_rank_step", MetricKind::gauge, "Step that a rank is in.");
  for (const auto* process : shown)
    out.sample(labels(*process), static_cast<double>(process->step));
  out.family("tutti_rank_straggler_ratio", MetricKind::gauge,
             "Time of a rank for a shard of a step, over the median rank's.");
  for (const auto* process : shown) {
    if (process->straggler > 0) out.sample(labels(*process), process->straggler);
  }
  out.family("tutti_rank_collective", MetricKind::gauge,
             "Number of the collective of its step that a rank is in.");
  for (const auto* process : shown)
    out.sample(labels(*process), static_cast<double>(process->collective));
}

void put_totals(Exposition& out, coordinator::ClusterHost& cluster) {
  const coordinator::ClusterMeter& meter = cluster.meter();
  out.counter("tutti_jobs_submitted_total", meter.submitted, "Jobs accepted.");
  out.family("tutti_jobs_ended_total", MetricKind::counter, "Jobs ended, by kind and state.");
  for (const auto& [key, count] : meter.settled)
    out.sample({{"kind", key.first}, {"state", key.second}}, static_cast<double>(count));
  out.counter("tutti_generations_total", meter.generations, "Generations started.");
  out.family("tutti_interruptions_total", MetricKind::counter,
             "First causes of interruptions, by whom they are charged to.");
  for (const auto& [failure, count] : meter.interruptions)
    out.sample({{"class", failure}}, static_cast<double>(count));
  out.counter("tutti_checkpoints_total", meter.checkpoints, "Checkpoints committed.");
  out.counter("tutti_checkpoints_dropped_total", meter.checkpoints_dropped,
              "Checkpoints given up.");
  out.counter("tutti_steps_lost_total", meter.steps_lost, "Steps that recoveries did again.");
  out.family("tutti_job_queue_seconds", MetricKind::histogram, "From submit to running.");
  out.histogram({}, meter.queue_seconds);
  out.family("tutti_job_start_phase_seconds", MetricKind::histogram,
             "Its parts: until slots are reserved, until all ranks are ready, until they run.");
  for (const auto& phase : meter.start)
    out.histogram({{"phase", std::string(phase.phase)}}, phase.seconds);
  out.family("tutti_job_run_seconds", MetricKind::histogram, "From running to the end.");
  out.histogram({}, meter.run_seconds);
  out.family("tutti_recovery_phase_seconds", MetricKind::histogram,
             "Recoveries: from the loss seen to the end of each phase.");
  for (const auto& phase : meter.recovery)
    out.histogram({{"phase", std::string(phase.phase)}}, phase.seconds);
  const coordinator::ClusterCounters counters = cluster.settled_state().counters();
  out.counter("tutti_recoveries_total", counters.recoveries, "Recoveries begun.");
  out.family("tutti_jobs_left_total", MetricKind::counter,
             "Times that jobs left their slots or changed them after a common step, by why.");
  out.sample({{"why", "preempted"}}, static_cast<double>(counters.preemptions));
  out.sample({{"why", "drained"}}, static_cast<double>(counters.drains));
  out.sample({{"why", "resized"}}, static_cast<double>(counters.resizes));
  out.counter("tutti_hangs_total", counters.hangs, "Ranks found to stand still.");
  out.family("tutti_nodes_quarantined_total", MetricKind::counter,
             "Nodes set aside, by what they did to deserve it.");
  out.sample({{"why", "failures"}}, static_cast<double>(counters.quarantines));
  out.sample({{"why", "losses"}}, static_cast<double>(counters.quarantines_lost));
  out.gauge("tutti_submit_keys", static_cast<double>(counters.keys_kept),
            "Keys of submits whose jobs are forgotten.");
  out.counter("tutti_submit_keys_dropped_total", counters.keys_dropped_early,
              "Of those, dropped for want of room before their seven days were over.");
  out.counter("tutti_workers_lost_total", counters.workers_lost, "Workers lost.");
  out.counter("tutti_hellos_refused_total", counters.refused_hellos, "Workers not let in.");
  out.counter("tutti_reports_stale_total", counters.stale_reports,
              "Reports of an old generation or an unknown process.");
}

void put_ledger(Exposition& out, coordinator::ClusterHost& cluster) {
  const coordinator::HostCounters& counters = cluster.counters();
  out.counter("tutti_decisions_total", counters.decisions, "Inputs that were decided on.");
  out.family("tutti_decision_seconds", MetricKind::histogram, "How long a decision took.");
  out.histogram({}, counters.decision_seconds);
  out.counter("tutti_ledger_syncs_total", counters.syncs, "Transactions of the ledger.");
  out.counter("tutti_ledger_facts_total", counters.facts, "Facts made durable by them.");
  out.family("tutti_ledger_sync_seconds", MetricKind::histogram,
             "How long a transaction took, with its sync.");
  out.histogram({}, counters.sync_seconds);
  out.counter("tutti_ledger_snapshots_total", counters.snapshots, "Snapshots written.");
  out.family("tutti_ledger_snapshot_seconds", MetricKind::histogram,
             "How long a snapshot held up everything else.");
  out.histogram({}, counters.snapshot_seconds);
  out.family("tutti_ledger_checkpoint_seconds", MetricKind::histogram,
             "How long it held up everything else to bring the ledger's log into its file.");
  out.histogram({}, counters.checkpoint_seconds);
  out.family("tutti_cluster_lag_seconds", MetricKind::histogram,
             "How late a timer of the strand came that all decisions share, once a second.");
  out.histogram({}, counters.lag_seconds);
  out.gauge("tutti_ledger_failing", cluster.ledger_failing() ? 1 : 0,
            "1 while the ledger's disk takes nothing.");
  out.gauge("tutti_ledger_size_bytes", static_cast<double>(cluster.ledger().bytes()),
            "Size of the ledger's file.");
}

void put_frames(Exposition& out, coordinator::ClusterHost& cluster) {
  const wire::FrameCounters& frames = cluster.frame_counters();
  out.counter("tutti_frames_taken_total", frames.taken, "Frames of workers taken.");
  out.family("tutti_frames_refused_total", MetricKind::counter, "Frames dropped, by cause.");
  const std::pair<std::string_view, std::uint64_t> causes[] = {
      {"truncated", frames.truncated},
      {"oversized", frames.oversized},
      {"bad_magic", frames.bad_magic},
      {"bad_version", frames.bad_version},
      {"unknown_kind", frames.unknown_kind},
      {"bad_body", frames.bad_body},
      {"stale_session", frames.stale_session + cluster.settled_state().counters().stale_frames},
  };
  for (const auto& [cause, count] : causes)
    out.sample({{"cause", std::string(cause)}}, static_cast<double>(count));
  const transport::EndpointCounters& endpoint = cluster.endpoint_counters();
  out.counter("tutti_control_accepted_total", endpoint.accepted, "TCP connections taken.");
  out.counter("tutti_control_connections_total", endpoint.connected, "Handshakes that succeeded.");
  out.counter("tutti_control_disconnections_total", endpoint.disconnected, "Connections ended.");
  out.counter("tutti_control_handshakes_failed_total", endpoint.handshakes_failed,
              "Wrong keys, wrong mechanisms, noise.");
  out.counter("tutti_control_frames_malformed_total", endpoint.malformed_in,
              "Messages that are no frame.");
  out.counter("tutti_control_sends_refused_total", endpoint.refused_out,
              "Frames that a worker's queue did not take.");
}

// Of this process.
void put_process(Exposition& out) {
  std::ifstream file("/proc/self/statm");
  std::uint64_t total = 0;
  std::uint64_t resident = 0;
  file >> total >> resident;
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  out.gauge("tutti_process_resident_memory_bytes", static_cast<double>(resident * page),
            "Memory of the coordinator.");
  out.family("tutti_build_info", MetricKind::gauge, "This program's version.");
  out.sample({{"version", TUTTI_VERSION}}, 1);
}

asio::awaitable<Answer> metrics(const ClusterParts& parts) {
  const auto nodes = co_await all_nodes(parts.cluster);
  if (!nodes) co_return error_answer(nodes.error());
  auto figures = parts.stores.figures();
  auto write = [cluster = &parts.cluster, figures = std::move(figures)] {
    Exposition out;
    put_jobs(out, *cluster);
    put_figures(out, cluster->settled_state(), figures);
    put_totals(out, *cluster);
    put_ledger(out, *cluster);
    put_frames(out, *cluster);
    return Result<Exposition>(std::move(out));
  };
  Result<Exposition> out = co_await ask<Result<Exposition>>(parts.cluster.host(), write);
  if (!out) co_return error_answer(out.error());
  put_nodes(*out, *nodes);
  put_devices(*out, *nodes);
  put_ranks(*out, *nodes);
  put_process(*out);
  Answer answer;
  answer.content_type = "text/plain; version=0.0.4";
  answer.body = out->text() + (parts.more_metrics ? parts.more_metrics() : std::string());
  co_return answer;
}

asio::awaitable<Answer> healthz() {
  Answer answer;
  answer.content_type = "text/plain";
  answer.body = "ok\n";
  co_return answer;
}

}  // namespace

std::string http_metrics(const HttpServer& server) {
  Exposition out;
  const HttpServerCounters counters = server.counters();
  out.gauge("tutti_http_connections", static_cast<double>(counters.connections),
            "Connections open now.");
  out.counter("tutti_http_connections_refused_total", counters.refused,
              "Connections above the limit.");
  out.counter("tutti_http_unauthorized_total", counters.unauthorized, "Requests without a token.");
  out.counter("tutti_http_forbidden_total", counters.forbidden,
              "Requests with a token whose role is too small.");
  out.family("tutti_http_requests_total", MetricKind::counter,
             "Requests by route and status; an empty route took none.");
  for (const RouteCount& route : server.route_counts()) {
    for (const auto& [status, count] : route.by_status) {
      out.sample(
          {{"method", route.method}, {"route", route.path}, {"code", std::to_string(status)}},
          static_cast<double>(count));
    }
  }
  return out.text();
}

std::vector<Route> metrics_routes(const ClusterParts& parts) {
  const auto shared = std::make_shared<const ClusterParts>(parts);
  return {
      {"GET", "/metrics", Role::viewer, [shared](const Call&) { return metrics(*shared); }},
      {"GET", "/healthz", Role::anyone, [](const Call&) { return healthz(); }},
  };
}

}  // namespace tutti::api
