#include "ops/cli/device_fit.h"

#include <catch2/catch.hpp>

#include <boost/json/parse.hpp>

#include "protocol/spec/parse.h"

namespace tutti::cli {
namespace {

constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;

spec::JobSpec training_job(const std::vector<std::string>& overrides = {}) {
  auto spec = spec::parse_job_spec(
      "name: tiny\nkind: train\n"
      "model: {family: llama, layers: 1, width: 16, heads: 2, vocabulary: 270}\n"
      "data: {text: [/prose.txt], sequence: 12}\ntrain: {steps: 5, batch: 4, micro: 4}\n"
      "resources: {device: gpu}\n",
      {.file = "job.yaml", .overrides = overrides});
  REQUIRE(spec);
  return *std::move(spec);
}

// Two GiB of weights, and one for each sample of a micro-batch; a quarter, where layers are run
// again.
Result<DeviceMemory> ask(const spec::JobSpec& spec) {
  const std::uint64_t activations =
      spec.train.micro * kGiB / (spec.train.recompute == "full" ? 4 : 1);
  return DeviceMemory{.parts = {{"weights", 2 * kGiB}, {"activations", activations}},
                      .bytes = 2 * kGiB + activations,
                      .least_bytes = 2 * kGiB + activations,
                      .ranks = 1,
                      .tiles = {}};
}

ClusterDevices of_gib(std::uint64_t gib) {
  return {.largest_bytes = gib * kGiB, .largest_node = "large", .has_unknown = false};
}

TEST_CASE(
    "device fit: the largest device of all nodes counts, and one of no size is known as such") {
  const auto devices = devices_of(boost::json::parse(R"({"nodes": [
      {"name": "a", "devices": [{"memory_bytes": 8}, {"memory_bytes": 16}]},
      {"name": "b", "devices": [{"memory_bytes": 24}]}, {"name": "c", "devices": []}]})"));
  CHECK(devices.largest_bytes == 24);
  CHECK(devices.largest_node == "b");
  CHECK_FALSE(devices.has_unknown);
  const auto older =
      devices_of(boost::json::parse(R"({"nodes": [{"name": "a", "devices": [{"uuid": "x"}]}]})"));
  CHECK(older.largest_bytes == 0);
  CHECK(older.has_unknown);
  // A worker for GPUs whose driver is missing.
  constexpr const char* kSpeechless = R"({"name": "a", "labels": ["device=gpu"], "devices": []})";
  constexpr const char* kLarge = R"({"name": "b", "devices": [{"memory_bytes": 24}]})";
  const auto nodes = [](const std::string& list) {
    return devices_of(boost::json::parse("{\"nodes\": [" + list + "]}"));
  };
  CHECK(nodes(kSpeechless).has_unknown);
  CHECK_FALSE(nodes(std::string(kSpeechless) + "," + kLarge).has_unknown);
}

TEST_CASE("device fit: a job for GPUs asks for what it takes, unless it says what it asks for") {
  spec::JobSpec spec = training_job();
  const DeviceFit fit = fit_devices(spec, of_gib(8), ask);
  CHECK(fit.filled);
  CHECK(fit.fits());
  CHECK(spec.resources.device_memory_bytes == 6 * kGiB);
  const std::string text = fit_text(fit);
  CHECK(text.find("weights            2 GiB\n") != std::string::npos);
  CHECK(text.find("fits: the largest GPU has 8 GiB (node large)") != std::string::npos);

  spec::JobSpec given = training_job({"resources.device_memory=1GiB"});
  const DeviceFit own = fit_devices(given, of_gib(4), ask);
  CHECK_FALSE(own.filled);
  CHECK(given.resources.device_memory_bytes == kGiB);
  CHECK_FALSE(own.fits());
  CHECK_FALSE(own.is_refused());
}

TEST_CASE("device fit: a job that fits nowhere is refused with what to change, if that helps") {
  spec::JobSpec spec = training_job();
  const DeviceFit fit = fit_devices(spec, of_gib(4), ask);
  CHECK(fit.is_refused());
  CHECK(misfit_line(fit) ==
        "the job takes 6 GiB of each GPU, and the largest of the cluster has 4 GiB: with "
        "train.recompute=full it takes 3 GiB, which fits");
  CHECK(fit_json(fit).at("fits") == false);
  CHECK(fit_json(fit).at("parts").as_array().size() == 2);
  spec::JobSpec large = training_job();
  const DeviceFit never = fit_devices(large, of_gib(1), ask);
  CHECK(misfit_line(never).find("take a smaller model or larger GPUs") != std::string::npos);
  CHECK(fit_text(never).find("with train.micro=1 it takes 3 GiB\n") != std::string::npos);
}

TEST_CASE(
    "device fit: what takes no GPU is not estimated; what cannot be estimated goes as it is") {
  int asked = 0;
  const AskMemory fails = [&](const spec::JobSpec&) -> Result<DeviceMemory> {
    ++asked;
    return Error{ErrorCode::not_found, "no model here"};
  };
  spec::JobSpec anywhere = training_job({"resources.device=any"});
  CHECK(fit_text(fit_devices(anywhere, of_gib(8), fails)).empty());
  spec::JobSpec on_any = training_job({"resources.device=any", "train.precision=bf16"});
  CHECK(fit_text(fit_devices(on_any, of_gib(8), fails)).empty());
  CHECK(asked == 0);
  spec::JobSpec narrow = training_job({"train.precision=bf16"});
  const DeviceFit unknown = fit_devices(narrow, of_gib(8), fails);
  CHECK(asked == 1);
  CHECK(unknown.problem == "no model here");
  CHECK_FALSE(unknown.is_refused());
  CHECK(narrow.resources.device_memory_bytes == 0);
}

TEST_CASE("device fit: without a GPU known, or with one of no size, nothing is refused") {
  spec::JobSpec spec = training_job();
  const DeviceFit none = fit_devices(spec, {}, ask);
  CHECK(none.fits());
  CHECK(none.filled);
  ClusterDevices older = of_gib(8);
  older.has_unknown = true;
  spec::JobSpec other = training_job();
  CHECK_FALSE(fit_devices(other, older, ask).filled);
  CHECK(other.resources.device_memory_bytes == 0);
}

TEST_CASE("rank tools: the answer of tutti-rank is its last line, anything else is an error") {
  const auto memory = parse_device_memory(
      "a line of a library\n"
      R"({"bytes":5,"least_bytes":3,"ranks":2,"parts":[{"name":"weights","bytes":5}]})"
      "\n");
  REQUIRE(memory);
  CHECK(memory->bytes == 5);
  CHECK(memory->least_bytes == 3);
  CHECK(memory->ranks == 2);
  CHECK(memory->parts.at(0).name == "weights");
  const auto wrong = parse_device_memory("tutti memory: it is no job\n");
  REQUIRE_FALSE(wrong);
  CHECK(wrong.error().message.find("it is no job") != std::string::npos);
}

}  // namespace
}  // namespace tutti::cli
