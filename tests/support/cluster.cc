#include "tests/support/cluster.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <boost/json/parse.hpp>
#include <catch2/catch.hpp>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <thread>

#include "protocol/base/rng.h"
#include "protocol/base/secret.h"
#include "tests/support/patience.h"
#include "tests/support/sanitizers.h"

namespace tutti::test {

namespace fs = std::filesystem;
namespace json = boost::json;
using namespace std::chrono_literals;

namespace {

constexpr const char* kMark = "TUTTI_TEST_CLUSTER";

std::string binary() {
  const char* folder = std::getenv("TUTTI_BIN");
  return std::string(folder == nullptr ? "build/bin" : folder) + "/tutti";
}

std::string content_of(const fs::path& path) {
  auto content = read_file(path);
  return content ? *std::move(content) : std::string();
}

std::vector<std::string> base_environment(const std::vector<std::string>& more) {
  std::vector<std::string> out{"PATH=/usr/local/bin:/usr/bin:/bin", "TUTTI_LOG=info"};
  add_sanitizer_options(out);
  out.insert(out.end(), more.begin(), more.end());
  return out;
}

// What runs as a rank: the test's own program, else $TUTTI_TEST_RANK (ops/sanitize: that of a plain
// build, so that jobs keep their speed), else tutti-rank beside tutti (empty).
std::string rank_binary(const ClusterOptions& options) {
  const char* given = std::getenv("TUTTI_TEST_RANK");
  if (!options.rank_binary.empty() || given == nullptr) return options.rank_binary.string();
  return given;
}

std::string new_mark() { return std::string(kMark) + "=" + random_hex(8); }

std::optional<worker::ExitStatus> wait_exit(const worker::Launched& process,
                                            std::chrono::milliseconds deadline) {
  pollfd poll{.fd = process.pidfd.get(), .events = POLLIN, .revents = 0};
  if (::poll(&poll, 1, static_cast<int>(patient(deadline).count())) != 1) return std::nullopt;
  return worker::reap(process);
}

int shell_code(const worker::ExitStatus& status) {
  return status.signal != 0 ? 128 + status.signal : status.code;
}

json::value parsed(const std::string& text) {
  boost::system::error_code failed;
  json::value value = json::parse(text, failed);
  INFO(text);
  REQUIRE_FALSE(failed);
  return value;
}

}  // namespace

Finished run_tutti(const std::vector<std::string>& words,
                   const std::vector<std::string>& environment, std::chrono::seconds deadline) {
  const TemporaryFolder folder;
  worker::LaunchPlan plan;
  plan.command = {
      "sh", "-c",
      "exec \"$@\" >" + (folder.path() / "out").string() + " 2>" + (folder.path() / "err").string(),
      "sh", binary()};
  plan.command.insert(plan.command.end(), words.begin(), words.end());
  plan.environment = base_environment(environment);
  const auto process = worker::launch(plan);
  REQUIRE(process);
  Finished out;
  if (const auto status = wait_exit(*process, deadline)) {
    out.code = shell_code(*status);
  } else {
    worker::signal_group(process->pid, SIGKILL);
    wait_exit(*process, 10s);
  }
  out.out = content_of(folder.path() / "out");
  out.err = content_of(folder.path() / "err");
  return out;
}

bool is_pending(pid_t pid, int signal) {
  const std::string status = content_of("/proc/" + std::to_string(pid) + "/status");
  const std::size_t at = status.find("ShdPnd:");
  if (at == std::string::npos) return false;
  const std::uint64_t pending = std::strtoull(status.c_str() + at + 7, nullptr, 16);
  return (pending >> (signal - 1) & 1U) != 0;
}

bool eventually(const std::function<bool()>& holds, std::chrono::seconds deadline) {
  const Instant until = monotonic_now() + patient(deadline);
  while (!holds()) {
    if (monotonic_now() >= until) return false;
    std::this_thread::sleep_for(10ms);  // between two questions to another process
  }
  return true;
}

Cluster::Cluster(unsigned slots) : Cluster(ClusterOptions{.slots = slots}) {}

Cluster::Cluster(const ClusterOptions& options)
    : options_(options), state_(folder_.path() / "state"), mark_(new_mark()) {
  start();
}

Cluster::Cluster(unsigned slots, fs::path state)
    : options_{.slots = slots}, state_(std::move(state)), mark_(new_mark()) {
  start();
}

Cluster::~Cluster() {
  for (const auto& [name, added] : workers_) {
    worker::signal_group(added.pid, SIGKILL);
    wait_exit(added, 10s);
  }
  if (up_) {
    worker::signal_group(up_->pid, SIGKILL);
    wait_exit(*up_, 10s);
  }
  worker::end_marked({mark_}, patient(10s));
}

std::vector<std::string> Cluster::environment() const {
  std::vector<std::string> out = base_environment(options_.environment);
  out.push_back(mark_);
  return out;
}

void Cluster::start() {
  std::vector<std::string> command = {
      binary(), "up", "--slots", std::to_string(options_.slots), "--state", state_.string(),
      "--port", "0",  "--faults"};
  const std::string rank = rank_binary(options_);
  if (!rank.empty()) command.insert(command.end(), {"--rank-binary", rank});
  auto up = worker::launch(
      {.command = command, .environment = environment(), .folder = {}, .linked = false});
  REQUIRE(up);
  up_ = *std::move(up);
  const bool ready = eventually(
      [&] {
        const Finished nodes = tutti({"nodes", "-o", "json"}, 10s);
        return nodes.code == 0 && nodes.out.find("\"ready\"") != std::string::npos;
      },
      30s);
  INFO(content_of(state_ / "coordinator.log") << content_of(state_ / "worker.log"));
  REQUIRE(ready);
}

Finished Cluster::tutti(const std::vector<std::string>& words,
                        std::chrono::seconds deadline) const {
  return run_tutti(words, {"TUTTI_STATE=" + state_.string()}, deadline);
}

api::HttpAnswer Cluster::get(const std::string& target) const {
  return ask({.method = "GET", .target = target, .body = {}});
}

api::HttpAnswer Cluster::post(const std::string& target, const std::string& body) const {
  return ask({.method = "POST", .target = target, .body = body});
}

api::HttpAnswer Cluster::ask(const api::HttpRequest& request) const {
  auto trimmed = [](std::string text) {
    while (!text.empty() && text.back() == '\n') text.pop_back();
    return text;
  };
  const auto client = api::HttpClient::connect_to({.url = trimmed(content_of(state_ / "address")),
                                                   .token = trimmed(content_of(state_ / "token"))});
  REQUIRE(client);
  auto answer = (*client)->request(request);
  // A coordinator that was killed a moment ago is asked again by whoever waits for something.
  return answer ? *std::move(answer) : api::HttpAnswer{};
}

std::uint64_t Cluster::submit(const std::string& yaml,
                              const std::vector<std::string>& options) const {
  const fs::path file = folder_.path() / "job.yaml";
  REQUIRE(write_file_atomically(file, yaml));
  std::vector<std::string> words{"submit", file.string()};
  words.insert(words.end(), options.begin(), options.end());
  const Finished submitted = tutti(words);
  INFO(submitted.err);
  REQUIRE(submitted.code == 0);
  return std::stoull(submitted.out);
}

int Cluster::wait(std::uint64_t job) const {
  const Finished done = tutti({"wait", std::to_string(job)}, 120s);
  UNSCOPED_INFO("tutti wait: " << done.out << done.err);
  if (done.code == -1) {
    UNSCOPED_INFO(tutti({"events", std::to_string(job)}).out);
    UNSCOPED_INFO(content_of(state_ / "worker.log"));
  }
  return done.code;
}

json::value Cluster::job(std::uint64_t id) const {
  const api::HttpAnswer answer = get("/api/v1/jobs/" + std::to_string(id));
  if (answer.status != 200) return json::object();
  return parsed(answer.body);
}

std::string Cluster::state_of(std::uint64_t id) const {
  const json::value found = job(id);
  const json::value* state = found.as_object().if_contains("state");
  return state == nullptr || !state->is_string() ? std::string()
                                                 : std::string(state->as_string().c_str());
}

std::uint64_t Cluster::step_of(std::uint64_t id) const {
  const json::value found = job(id);
  const json::value* step = found.as_object().if_contains("step");
  return step == nullptr || !step->is_number() ? 0 : step->to_number<std::uint64_t>();
}

std::map<std::uint64_t, std::string> Cluster::hashes(std::uint64_t job) const {
  const Finished steps = tutti({"steps", std::to_string(job), "-o", "json"});
  INFO(steps.err);
  REQUIRE(steps.code == 0);
  std::map<std::uint64_t, std::string> out;
  std::string_view rest = steps.out;
  while (!rest.empty()) {
    const std::string line(rest.substr(0, rest.find('\n')));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    const json::value record = parsed(line);
    const auto step = record.at("step").to_number<std::uint64_t>();
    REQUIRE(out.emplace(step, record.at("weights").as_string().c_str()).second);
  }
  return out;
}

pid_t Cluster::pid_of(const std::string& part) const {
  boost::system::error_code failed;
  const json::value value = json::parse(content_of(state_ / "up.json"), failed);
  if (failed || !value.is_object()) return 0;
  const json::value* pid = value.as_object().if_contains(part);
  return pid == nullptr || !pid->is_number() ? 0 : pid->to_number<pid_t>();
}

std::vector<pid_t> Cluster::ranks_of(std::uint64_t job) const {
  std::vector<pid_t> out;
  const std::string id = std::to_string(job);
  for (const pid_t pid : worker::find_marked({mark_, "TUTTI_JOB=" + id})) {
    const std::string command = worker::command_of(pid);
    if (command.find("tutti-rank") != std::string::npos) out.push_back(pid);
  }
  return out;
}

void Cluster::kill_part(const std::string& part) const {
  pid_t pid = 0;
  REQUIRE(eventually([&] { return (pid = pid_of(part)) > 0; }));
  REQUIRE(::kill(pid, SIGKILL) == 0);
}

void Cluster::add_worker(const std::string& name, unsigned slots, fs::path join) {
  if (join.empty()) join = state_ / "join.json";
  const fs::path config = folder_.path() / (name + ".yaml");
  const std::string rank = rank_binary(options_);
  REQUIRE(write_file_atomically(
      config, "state: " + (folder_.path() / name).string() + "\njoin: " + join.string() +
                  "\nname: " + name + "\nslots: " + std::to_string(slots) +
                  "\nthreads: 1\nfaults: true\n" +
                  (rank.empty() ? std::string() : "rank_binary: " + rank + "\n")));
  auto started = worker::launch({.command = {binary(), "worker", "--config", config.string()},
                                 .environment = environment(),
                                 .folder = {},
                                 .linked = false});
  REQUIRE(started);
  workers_[name] = *std::move(started);
  REQUIRE(eventually(
      [&] { return get("/api/v1/nodes").body.find("\"" + name + "\"") != std::string::npos; }));
}

void Cluster::kill_worker(const std::string& name) {
  const auto at = workers_.find(name);
  REQUIRE(at != workers_.end());
  worker::signal_group(at->second.pid, SIGKILL);
  REQUIRE(wait_exit(at->second, 10s));
  workers_.erase(at);
}

void Cluster::signal(int number) const {
  REQUIRE(up_);
  REQUIRE(::kill(up_->pid, number) == 0);
}

std::string Cluster::log_of(const std::string& part) const {
  return content_of(state_ / (part + ".log"));
}

int Cluster::stop(int signal) {
  REQUIRE(up_);
  for (const auto& [name, added] : workers_) {
    ::kill(added.pid, SIGTERM);
    const auto ended = wait_exit(added, 30s);
    REQUIRE(ended);
    CHECK(shell_code(*ended) == 0);
  }
  workers_.clear();
  ::kill(up_->pid, signal);
  const auto status = wait_exit(*up_, 30s);
  INFO(content_of(state_ / "worker.log"));
  REQUIRE(status);
  up_.reset();
  for (const pid_t pid : worker::find_marked({mark_})) {
    std::string command = worker::command_of(pid);
    std::replace(command.begin(), command.end(), '\0', ' ');
    FAIL_CHECK("left behind: " << pid << " " << command);
  }
  for (const auto& segment : fs::directory_iterator("/dev/shm")) {
    const std::string name = segment.path().filename().string();
    if (name == "tutti-cores") continue;  // which worker the machine's cores belong to: it stays
    if (name.find("tutti") != std::string::npos) FAIL_CHECK("left behind: /dev/shm/" << name);
  }
  return shell_code(*status);
}

std::string some_prose(std::size_t words) {
  static constexpr const char* kWords[] = {
      "the",   "river",  "and",      "stone", "of",      "morning", "walked", "light", "under",
      "great", "people", "mountain", "spoke", "kingdom", "against", "went",   "house", "water",
      "a",     "voice",  "before",   "day",   "servant", "their",   "land",   "from",  "heard"};
  Rng rng(7);
  std::string out;
  for (std::size_t i = 0; i < words; ++i) {
    out += kWords[rng.below(std::size(kWords))];
    out += i % 11 == 10 ? ".\n" : " ";
  }
  return out;
}

}  // namespace tutti::test
