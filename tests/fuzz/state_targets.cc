// What parts of Tutti on one machine leave for each other: who runs, on which ports, and what a
// binary says that is asked before it takes over, or before it runs.
#include "coordinator/ports_file.h"
#include "ops/cli/rank_tools.h"
#include "ops/cli/up/state_files.h"
#include "tests/fuzz/targets.h"
#include "worker/launcher/next_binary.h"

namespace tutti::fuzz {

bool take_up_state(std::string_view bytes) {
  const auto state = cli::parse_up_state(bytes);
  if (!state) return false;
  // They are signalled: none is a group, or everybody.
  for (const pid_t pid : {state->up, state->coordinator, state->worker})
    require(pid >= 0, "a number that is no process's");
  const auto again = cli::parse_up_state(cli::to_json(*state));
  require(again && *again == *state, "up.json changes on its way");
  return state->up != 0;
}

std::vector<std::string> up_state_seeds() {
  return {cli::to_json({.up = 17, .coordinator = 18, .worker = 19, .faults = true}),
          cli::to_json({.up = 17}),
          R"({"pid":-1,"coordinator":4294967297,"worker":1e300,"faults":1})",
          R"({"pid":18446744073709551615})",
          "[]",
          "{"};
}

bool take_worker_state(std::string_view bytes) {
  const auto state = cli::parse_worker_state(bytes);
  if (!state) return false;
  require(state->pid >= 0, "a number that is no process's");
  return state->pid != 0;
}

std::vector<std::string> worker_state_seeds() {
  return {R"({"pid":17,"version":"1","restarts":2,"refused":1,"refusal":"no such file"})",
          R"({"pid":2147483648,"restarts":-1})", R"({"pid":"17"})", "null", ""};
}

bool take_ports(std::string_view bytes) {
  const coordinator::Ports ports = coordinator::parse_ports(bytes);
  require(coordinator::parse_ports(coordinator::to_json(ports)) == ports, "ports change");
  return ports != coordinator::Ports{};
}

std::vector<std::string> ports_seeds() {
  return {coordinator::to_json({.http = 7070, .control = 7071, .liveness = 7072}),
          R"({"http":65535,"control":65536,"liveness":-1})", R"({"http":"7070"})", "7070", ""};
}

bool take_next_binary(std::string_view bytes) {
  return worker::accepts(bytes, {.state = "/state", .handover = 1}).ok();
}

std::vector<std::string> next_binary_seeds() {
  return {"a library greets\n" + worker::check_line({.state = "/state", .handover = 1}) + "\n",
          R"({"version":"9.0","state":"/state","handovers":[0,1,2],"news":true})",
          R"({"version":"9.0","state":"/state","handovers":[-1,4294967297]})",
          R"({"version":9,"state":"/other","handovers":[1]})", "\n{\n{"};
}

bool take_rank_memory(std::string_view bytes) { return cli::parse_device_memory(bytes).ok(); }

std::vector<std::string> rank_memory_seeds() {
  return {
      "a library greets\n"
      R"({"bytes":1024,"least_bytes":512,"ranks":2,"tiles":{"n":1},)"
      R"("parts":[{"name":"weights","bytes":1000}]})"
      "\n",
      R"({"bytes":-1,"least_bytes":0,"ranks":1,"parts":[]})",
      R"({"bytes":1,"least_bytes":0,"ranks":4294967296,"parts":[]})",
      R"({"bytes":1,"least_bytes":0,"ranks":1,"tiles":[],"parts":[{}]})", "\n\n"};
}

}  // namespace tutti::fuzz
