// Files by which the parts find each other and go on: join.json, what a rank binary says of its
// devices, manifests of checkpoints, schedules of faults, and what the stores of a job hold.
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include <filesystem>
#include <fstream>
#include <initializer_list>

#include "coordinator/store/log_store.h"
#include "coordinator/store/step_store.h"
#include "jobs/checkpoint/manifest.h"
#include "ops/cli/faults/fault_file.h"
#include "protocol/base/clock.h"
#include "tests/fuzz/targets.h"
#include "tests/fuzz/words.h"
#include "tests/support/temporary_folder.h"
#include "worker/agent/join.h"
#include "worker/agent/rank_devices.h"

namespace tutti::fuzz {

namespace json = boost::json;

bool take_join(std::string_view bytes) {
  const auto join = worker::parse_join(std::string(bytes));
  if (!join) return false;
  const json::object again{{"endpoint", worker::with_port(join->endpoint, 1)},
                           {"server_key", join->server_key},
                           {"join_token", join->join_token}};
  const auto twice = worker::parse_join(json::serialize(again));
  require(twice.ok() && twice->host == join->host && twice->server_key == join->server_key &&
              twice->join_token == join->join_token,
          "a join file changes with its port");
  return true;
}

std::vector<std::string> join_seeds() {
  return {R"({"endpoint":"tcp://127.0.0.1:4001","server_key":"k","join_token":"t","more":[1]})",
          R"({"endpoint":"tcp://[::1]:1","server_key":"","join_token":"","instead_of":"a"})",
          R"({"endpoint":"tcp://a:b:80","server_key":"k","join_token":"t"})",
          R"({"endpoint":"tcp://a:65536","server_key":"k","join_token":"t"})",
          R"({"endpoint":"tcp://a:0","server_key":"k","join_token":"t"})",
          R"({"endpoint":"ipc:///a:1","server_key":"k","join_token":"t"})"};
}

bool take_rank_devices(std::string_view bytes) {
  const auto devices = worker::parse_rank_devices(bytes);
  return devices.ok();
}

std::vector<std::string> rank_devices_seeds() {
  return {
      "a library speaks\n"
      R"({"profiles":["gpu-90"],"stack":"CUDA 13.0","devices":[{"uuid":"GPU-1","name":"H",)"
      R"("memory_bytes":1024}]})"
      "\n",
      R"({"problem":"no driver"})", R"({"profiles":[1],"stack":"","devices":[]})"};
}

// What is between the braces of "manifest": with the right hash around it, as one would write who
// wants it to be taken.
bool take_manifest(std::string_view bytes) {
  static_cast<void>(checkpoint::parse_manifest(bytes));
  const auto state = checkpoint::parse_state(bytes);
  if (state) {
    const auto twice = checkpoint::parse_state(checkpoint::to_json(*state));
    require(twice.ok() && *twice == *state, "the state of a checkpoint changes on its way");
  }
  boost::system::error_code failed;
  const json::value inner = json::parse(json::string_view(bytes.data(), bytes.size()), failed);
  if (failed) return false;
  const std::string text = json::serialize(inner);
  const auto manifest = checkpoint::parse_manifest(R"({"manifest":)" + text + R"(,"hash":")" +
                                                   checkpoint::hash_text(text) + R"("})");
  if (!manifest) return false;
  for (const checkpoint::FileEntry& file : manifest->files) {
    const std::filesystem::path path = std::filesystem::path("/folder") / file.name;
    require(path.lexically_normal().parent_path() == "/folder", "a file outside its folder");
  }
  const auto twice = checkpoint::parse_manifest(checkpoint::to_json(*manifest));
  require(twice.ok() && *twice == *manifest, "a manifest changes on its way");
  return true;
}

std::vector<std::string> manifest_seeds() {
  const checkpoint::Manifest manifest{.state = {.step = 10,
                                                .generation = 2,
                                                .optimizer = "adamw",
                                                .states = {"m", "v"},
                                                .weights = std::string(32, 'a'),
                                                .profile = "portable",
                                                .spec = "name: a\n"},
                                      .files = {{"model.safetensors", 8, std::string(32, 'b')}}};
  checkpoint::Manifest leaves = manifest;
  leaves.files[0].name = "../model.safetensors";
  checkpoint::Manifest hidden = manifest;
  hidden.files[0].name = "..";
  checkpoint::Manifest choices = manifest;
  choices.state.choices = "0 1 4096 1024 16 16 8 7475 1 0 0 0 0 0 0\n";
  std::vector<std::string> out;
  for (const auto& each : {manifest, choices, leaves, hidden}) {
    out.push_back(json::serialize(json::parse(checkpoint::to_json(each)).at("manifest")));
  }
  out.push_back(checkpoint::to_json(manifest.state));
  return out;
}

bool take_fault_file(std::string_view bytes) {
  const auto file = cli::parse_fault_file(bytes, "faults.yaml");
  if (!file) {
    require(file.error().message.find('\n') == std::string::npos, "an error of several lines");
    return false;
  }
  require(file->entries.size() <= cli::kFaultEntriesMax, "more faults than a file may have");
  for (const cli::FaultEntry& entry : file->entries) {
    for (const auto& span : {entry.at, entry.every}) {
      if (!span) continue;
      require(span->first <= span->last, "a span that ends before it begins");
      require(cli::parse_fault_span(cli::print_fault_span(*span)) == span, "a span changes");
    }
  }
  return true;
}

std::vector<std::string> fault_file_seeds() {
  return {
      "spec: kjv.yaml\nset: [a=b]\nfaults:\n  seed: 7\n  inject:\n"
      "    - {fault: kill-rank, at: step 20}\n"
      "    - {fault: stop-rank, rank: 1, at: step 35..60, for: 2s}\n"
      "    - {fault: kill-worker, every: 4s..9s, times: 3}\n",
      "job: kjv\nfaults: {inject: [{fault: cut, at: 3s, for: 1s}]}\n",
      "job: kjv\nfaults: {inject: [{fault: kill-rank, at: step 9..3}]}\n"};
}

// One file of a log, as the next coordinator finds it.
bool take_log_file(std::string_view bytes) {
  static const test::TemporaryFolder folder;
  const auto path = folder.path() / "log-00000000000000000000";
  std::ofstream(path, std::ios::binary | std::ios::trunc)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  auto store = coordinator::LogStore::open(folder.path());
  if (!store) return false;
  const std::uint64_t end = store->end();
  require(end <= bytes.size(), "a log is longer than its file");
  std::uint64_t at = 0;
  while (at < end) {
    const auto page = store->read(at, {}, 1'000);
    require(page.ok() && page->next > at, "what was kept of a log cannot be read");
    at = page->next;
  }
  return end > 0;
}

std::vector<std::string> log_file_seeds() {
  const test::TemporaryFolder folder;
  {
    auto store = coordinator::LogStore::open(folder.path());
    require(store.ok(), "no log");
    wire::SpoolData data;
    data.process = ProcessId{3};
    data.generation = Generation{1};
    for (const std::uint64_t offset : {0, 6, 20}) {  // the last leaves a gap
      data.offset = offset;
      data.bytes = "hello\n";
      data.end = offset == 20;
      require(store->append(data).ok(), "a log takes nothing");
    }
  }
  std::ifstream file(folder.path() / "log-00000000000000000000", std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  return {bytes, bytes.substr(0, 60), bytes.substr(1)};
}

bool take_step_lines(std::string_view bytes) {
  static const test::TemporaryFolder folder;
  std::filesystem::remove(folder.path() / "steps.jsonl");
  std::uint64_t count = 0;
  {
    auto store = coordinator::StepStore::open(folder.path());
    require(store.ok(), "no step records");
    const auto taken = store->append(bytes, {.process = ProcessId{3}, .rank = 1});
    require(taken.ok() && taken->count == store->count(), "step records are lost");
    count = store->count();
  }
  const auto again = coordinator::StepStore::open(folder.path());
  require(again.ok() && again->count() == count, "the next coordinator has other step records");
  return count > 0;
}

std::vector<std::string> step_lines_seeds() {
  return {"{\"step\":1,\"weights\":\"aa\",\"loss\":2.5,\"tokens\":64}\n{\"step\":2}\n",
          "{\"step\":1,\"weights\":\"aa\"}\n{\"step\":1,\"weights\":\"bb\"}\n",
          "{\"step\":-1}\n[]\n{\"step\":\"1\"}\n"};
}

namespace {

const std::string kRecords = "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n";

// As StepIndex has it: FNV-1a over words.
std::uint64_t check_of(std::initializer_list<std::uint64_t> words) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const std::uint64_t word : words) hash = (hash ^ word) * 0x100000001b3ULL;
  return hash;
}

}  // namespace

// How much it covers, how many steps, the newest; and from step 0 on offset and size of each. With
// the right checks, as one would write who wants it to be taken.
bool take_step_index(std::string_view bytes) {
  constexpr std::uint64_t kMagic = 0x3158444e49505453ULL;
  constexpr std::size_t kHeaderBytes = 64;
  static const test::TemporaryFolder folder;
  std::string index;
  const std::initializer_list<std::uint64_t> header = {kMagic, word_at(bytes, 0), word_at(bytes, 1),
                                                       word_at(bytes, 2)};
  for (const std::uint64_t word : header) put_word(index, word);
  put_word(index, check_of(header));
  index.resize(kHeaderBytes, '\0');
  for (std::size_t at = 3; at * sizeof(std::uint64_t) < bytes.size(); at += 2) {
    const std::uint64_t offset = word_at(bytes, at);
    const std::uint64_t size = word_at(bytes, at + 1);
    put_word(index, offset);
    put_word(index, size);
    put_word(index, check_of({(at - 3) / 2, offset, size}));
  }
  std::ofstream(folder.path() / "steps.jsonl", std::ios::binary | std::ios::trunc) << kRecords;
  std::ofstream(folder.path() / "steps.index", std::ios::binary | std::ios::trunc) << index;
  auto store = coordinator::StepStore::open(folder.path());
  if (!store) return false;
  const auto read = store->read(0, 10, monotonic_now() + std::chrono::hours(1));
  if (!read) return false;
  std::size_t size = 0;
  for (const std::string& record : read->records) size += record.size();
  require(size <= read->records.size() * kRecords.size(), "a record is longer than its file");
  return word_at(bytes, 0) != 0 && !read->records.empty();
}

std::vector<std::string> step_index_seeds() {
  return {words({36, 3, 3, 0, 0, 0, 12, 12, 12, 24, 12}),
          words({12, 1, 1, 0, 0, 0, 12}),
          words({36, 3, 3, 0, 0, 0, ~std::uint64_t{0}, 12, 12, 24, 12}),
          words({36, 1, ~std::uint64_t{0}, 0, 0, 0, 12}),
          words({36, 1, 1, 0, 0, 35, std::uint64_t{1} << 31}),
          words({})};
}

}  // namespace tutti::fuzz
