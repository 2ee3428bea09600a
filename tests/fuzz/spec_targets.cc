// YAML: job specs, overrides, cluster configurations.
#include "protocol/spec/cluster_config.h"
#include "protocol/spec/parse.h"
#include "tests/fuzz/targets.h"

namespace tutti::fuzz {

bool take_job_spec(std::string_view bytes) {
  const auto spec = spec::parse_job_spec(bytes);
  if (!spec) {
    require(spec.error().message.find('\n') == std::string::npos, "an error of several lines");
    return false;
  }
  const auto again = spec::parse_job_spec(spec::to_yaml(*spec));
  require(again.ok() && *again == *spec, "a resolved spec does not give itself");
  return true;
}

bool take_override(std::string_view bytes) {
  constexpr std::string_view kSpec = "{name: a, kind: run, command: [true]}";
  const auto spec = spec::parse_job_spec(kSpec, {.overrides = {std::string(bytes)}});
  if (!spec) return false;
  const auto again = spec::parse_job_spec(spec::to_yaml(*spec));
  require(again.ok() && *again == *spec, "a resolved spec does not give itself");
  return true;
}

bool take_cluster_config(std::string_view bytes) {
  const auto config = spec::parse_coordinator_config(bytes, "c.yaml");
  if (config) {
    const auto again = spec::parse_coordinator_config(spec::to_yaml(*config), "c.yaml");
    require(again.ok() && *again == *config, "a coordinator's configuration changes");
  }
  const auto worker = spec::parse_worker_config(bytes, "c.yaml");
  if (worker) {
    const auto again = spec::parse_worker_config(spec::to_yaml(*worker), "c.yaml");
    require(again.ok() && *again == *worker, "a worker's configuration changes");
  }
  return config.ok() || worker.ok();
}

std::vector<std::string> job_spec_seeds() {
  return {
      "name: a\nkind: train\nmodel: {family: llama, layers: 2, width: 64, heads: 4, vocabulary: "
      "512}\ndata: {text: [a.txt], sequence: 64}\ntrain: {steps: 10, batch: 8, optimizer: {rate: "
      "1e-3, betas: [0.9, 0.95]}}\nresources: {ranks: {min: 1, max: 2}}\n",
      "name: b\nkind: run\ncommand: [python3, \"a b\", '${index}']\nenv: {OMP_NUM_THREADS: "
      "\"1\"}\nresources: {ranks: 2, memory: 2GiB, labels: {zone: a}}\nlimit: {time: 1h}\n",
      "name: c\nkind: serve\nmodel: {path: /m}\nserve: {batch_max: 4}\n",
      "{name: d, kind: run, command: [\"\\u00e9\\t\"], on_loss: {of_node: wait, wait: 60s}}"};
}

std::vector<std::string> override_seeds() {
  return {"priority=10",
          "env={A: b}",
          "command=[a, b]",
          "resources.ranks.min=2",
          "resources.labels.zone=x",
          "resources.ranks.min=two"};
}

std::vector<std::string> cluster_config_seeds() {
  return {"state: /var/lib/tutti\nhttp_port: 80\nlease_ms: 5000\nheartbeat_ms: 500\n",
          "state: /w\njoin: /j.json\nname: node-1\nslots: 4\nlabels: {zone: a}\n",
          "state: /w\nslots: many\n"};
}

}  // namespace tutti::fuzz
