#include "protocol/spec/job_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <charconv>

namespace tutti::spec {

namespace {

constexpr std::uint32_t kShardsAutomatic = 8;
constexpr std::size_t kAfterMax = 100;      // each is looked at when one of them ends
constexpr std::uint32_t kByteTokens = 256;  // a byte-level tokenizer begins with one token a byte

bool is_exit_code(std::string_view text) {
  int code = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), code);
  return error == std::errc{} && rest == text.data() + text.size() && code >= 1 && code <= 255;
}

class JobCheck {
 public:
  JobCheck(JobSpec& spec, const Places& places) : spec_(spec), places_(places) {}

  Result<> retries() {
    for (std::size_t i = 0; i < spec_.retries.on.size(); ++i) {
      const auto& rule = spec_.retries.on[i];
      const std::string path = fmt::format("retries.on[{}]", i);
      for (const auto& [key, value] : rule) {
        if (key != "code" && key != "log" && key != "class") {
          return wrong("retries.on",
                       fmt::format("unknown key \"{}\" in {}; valid: code, log, class", key, path));
        }
      }
      const auto its_class = rule.find("class");
      if (its_class == rule.end() ||
          (its_class->second != "user" && its_class->second != "infrastructure")) {
        return wrong("retries.on", path + ".class must be one of user, infrastructure");
      }
      const auto code = rule.find("code");
      if (code == rule.end() && !rule.contains("log")) {
        return wrong("retries.on", path + " needs a code or a log text to match");
      }
      if (code != rule.end() && !is_exit_code(code->second)) {
        return wrong("retries.on", path + ".code must be an exit code between 1 and 255");
      }
    }
    return {};
  }

  // What holds for every kind.
  Result<> any() {
    const AfterSpec& after = spec_.after;
    if (after.ok.size() + after.failed.size() + after.any.size() > kAfterMax) {
      return wrong("after", fmt::format("after names more than {} jobs", kAfterMax));
    }
    for (const std::uint64_t job : after.failed) {
      if (std::find(after.ok.begin(), after.ok.end(), job) == after.ok.end()) continue;
      return wrong(
          "after.failed",
          fmt::format("job {} cannot be both done (after.ok) and failed (after.failed)", job));
    }
    if (spec_.resources.device == "cpu" && spec_.resources.device_memory_bytes != 0) {
      return wrong("resources.device_memory",
                   "a CPU has no memory of its own: resources.memory is what a rank may use");
    }
    if (given("begin") && given("delay") && spec_.delay_ms != 0) {
      return wrong("delay", "begin and delay exclude each other");
    }
    return {};
  }

  Result<> train() {
    for (const auto check :
         {&JobCheck::model, &JobCheck::data, &JobCheck::optimizer, &JobCheck::precision,
          &JobCheck::schedule, &JobCheck::shards, &JobCheck::ranks}) {
      if (Result<> checked = (this->*check)(); !checked) return checked;
    }
    return {};
  }

  Result<> serve() {
    if (!given("model.path"))
      return wrong("model", "model.path is missing: a serve job needs a model directory");
    if (spec_.model.path.empty()) return wrong("model.path", "model.path must not be empty");
    if (Result<> checked = rank_range(); !checked) return checked;
    if (spec_.resources.ranks_max > 1) {
      return error_at(place("resources.ranks.max"),
                      "serving over several ranks is not supported by this version",
                      ErrorCode::unsupported);
    }
    if (spec_.serve.name.empty()) spec_.serve.name = spec_.name;
    return {};
  }

  Result<> run() {
    if (spec_.command.empty() || spec_.command.front().empty()) {
      return wrong("command", "command must name a program");
    }
    if (spec_.array.at_once != 0 && spec_.array.count == 0) {
      return wrong("array.at_once", "array.at_once needs array.count");
    }
    if (spec_.array.count != 0 && spec_.array.at_once > spec_.array.count) {
      return wrong("array.at_once", fmt::format("array.at_once {} is more than array.count {}",
                                                spec_.array.at_once, spec_.array.count));
    }
    // A program keeps no state for the others to wait with: it is queued again as a whole.
    if (spec_.on_loss.of_node == "wait" || spec_.on_loss.of_node == "shrink") {
      return wrong("on_loss.of_node",
                   fmt::format("on_loss.of_node {} is for train and serve jobs: a run job is "
                               "queued again as a whole (replace), or fails",
                               spec_.on_loss.of_node));
    }
    if (spec_.on_loss.then == "shrink") {
      return wrong("on_loss.then",
                   "on_loss.then shrink is for train jobs: a run job fails, or is queued");
    }
    return rank_range();
  }

 private:
  bool given(std::string_view path) const { return places_.find(path) != places_.end(); }

  // The key's place, else that of the nearest section around it.
  Place place(std::string_view path) const {
    while (true) {
      if (const auto at = places_.find(path); at != places_.end()) return at->second;
      const std::size_t dot = path.rfind('.');
      path = dot == std::string_view::npos ? std::string_view{} : path.substr(0, dot);
    }
  }

  Error wrong(std::string_view path, std::string_view message) const {
    return error_at(place(path), message);
  }

  Result<> model() {
    ModelSpec& model = spec_.model;
    constexpr std::string_view kShape[] = {
        "family",       "layers",     "width",      "heads",        "kv_heads",
        "feed_forward", "vocabulary", "rope_theta", "norm_epsilon", "tied"};
    if (given("model.path")) {
      if (model.path.empty()) return wrong("model.path", "model.path must not be empty");
      for (const std::string_view key : kShape) {
        const std::string path = fmt::format("model.{}", key);
        if (given(path)) {
          return wrong(
              path, path + " does not go with model.path, whose directory says the model's shape");
        }
      }
      return {};
    }
    for (const std::string_view key : {"family", "layers", "width", "heads", "vocabulary"}) {
      const std::string path = fmt::format("model.{}", key);
      if (!given(path))
        return wrong("model", path + " is missing (or model.path, for a model that exists)");
    }
    if (model.width % model.heads != 0) {
      return wrong("model.width", fmt::format("model.width {} is not a multiple of model.heads {}",
                                              model.width, model.heads));
    }
    if (model.width / model.heads % 2 != 0) {
      return wrong(
          "model.width",
          fmt::format("model.width {} over {} heads is {} a head, and rotary positions need "
                      "an even number",
                      model.width, model.heads, model.width / model.heads));
    }
    if (model.kv_heads == 0) model.kv_heads = model.heads;
    if (model.heads % model.kv_heads != 0) {
      return wrong("model.kv_heads",
                   fmt::format("model.heads {} is not a multiple of model.kv_heads {}", model.heads,
                               model.kv_heads));
    }
    if (model.family == "gpt2" && model.kv_heads != model.heads) {
      return wrong("model.kv_heads",
                   fmt::format("model.kv_heads {} is not model.heads {}: a gpt2 has as many",
                               model.kv_heads, model.heads));
    }
    if (model.feed_forward == 0 && model.family == "gpt2") {
      model.feed_forward = 4 * model.width;
    } else if (model.feed_forward == 0) {
      constexpr std::uint32_t kMultiple = 64;
      const std::uint32_t exact = (model.width * 8 + 2) / 3;
      model.feed_forward = (exact + kMultiple - 1) / kMultiple * kMultiple;
    }
    return {};
  }

  Result<> data() {
    const DataSpec& data = spec_.data;
    if (data.text.empty() && data.tokens.empty()) {
      return wrong("data", "data needs files: give data.text or data.tokens");
    }
    if (!data.text.empty() && !data.tokens.empty()) {
      return wrong("data.tokens", "data.text and data.tokens exclude each other");
    }
    for (const std::string_view key : {"data.text", "data.tokens"}) {
      for (const std::string& file : key == "data.text" ? data.text : data.tokens) {
        if (file.empty()) return wrong(key, fmt::format("{} has a file without a name", key));
      }
    }
    const bool trains_tokenizer =
        !data.text.empty() && data.tokenizer.empty() && spec_.model.path.empty();
    if (trains_tokenizer && spec_.model.vocabulary <= kByteTokens) {
      return wrong(
          "model.vocabulary",
          fmt::format(
              "model.vocabulary {} is too small: a tokenizer trained on data.text begins with {} "
              "byte tokens",
              spec_.model.vocabulary, kByteTokens));
    }
    return {};
  }

  Result<> optimizer() {
    if (spec_.train.optimizer.betas.size() == 2) return {};
    return wrong("train.optimizer.betas",
                 fmt::format("train.optimizer.betas must have 2 numbers, not {}",
                             spec_.train.optimizer.betas.size()));
  }

  Result<> precision() {
    const TrainSpec& train = spec_.train;
    if (!std::has_single_bit(train.scaling.first)) {
      return wrong(
          "train.scaling.first",
          fmt::format("train.scaling.first must be a power of two, not {}", train.scaling.first));
    }
    const bool of_gpus = train.precision == "tf32" || train.precision == "fp8";
    if (of_gpus && spec_.resources.device != "gpu") {
      return wrong("train.precision",
                   "train.precision " + train.precision +
                       " is an arithmetic of GPUs: it needs resources.device gpu");
    }
    return {};
  }

  Result<> schedule() {
    const TrainSpec& train = spec_.train;
    if (train.stop > train.steps) {
      return wrong("train.stop", fmt::format("train.stop {} lies behind train.steps {}", train.stop,
                                             train.steps));
    }
    if (train.micro > train.batch) {
      return wrong("train.micro", fmt::format("train.micro {} is more than train.batch {}",
                                              train.micro, train.batch));
    }
    return {};
  }

  Result<> shards() {
    std::uint32_t& shards = spec_.parallel.shards;
    const std::uint32_t batch = spec_.train.batch;
    if (shards == 0) shards = std::bit_floor(std::min(kShardsAutomatic, batch));
    if (!std::has_single_bit(shards)) {
      return wrong("parallel.shards",
                   fmt::format("parallel.shards must be a power of two, not {}", shards));
    }
    if (shards > batch) {
      return wrong("parallel.shards",
                   fmt::format("parallel.shards {} is more than train.batch {}", shards, batch));
    }
    return {};
  }

  Result<> ranks() {
    if (Result<> checked = rank_range(); !checked) return checked;
    ResourceSpec& resources = spec_.resources;
    const std::uint32_t data = spec_.parallel.data;
    if (data != 0) {
      const bool ranks_given = given("resources.ranks.min") || given("resources.ranks.max");
      if (ranks_given && (data < resources.ranks_min || data > resources.ranks_max)) {
        return wrong("parallel.data",
                     fmt::format("parallel.data {} is outside of resources.ranks {} to {}", data,
                                 resources.ranks_min, resources.ranks_max));
      }
      resources.ranks_min = resources.ranks_max = data;
    }
    if (resources.ranks_max > spec_.parallel.shards) {
      return wrong(data != 0 ? "parallel.data" : "resources.ranks.max",
                   fmt::format("{} ranks are more than the {} shards of a batch (parallel.shards)",
                               resources.ranks_max, spec_.parallel.shards));
    }
    return {};
  }

  // `min` alone raises the maximum with it, `max` alone leaves the minimum at one.
  Result<> rank_range() {
    ResourceSpec& resources = spec_.resources;
    if (!given("resources.ranks.max"))
      resources.ranks_max = std::max(resources.ranks_max, resources.ranks_min);
    if (resources.ranks_min <= resources.ranks_max) return {};
    return wrong("resources.ranks.min",
                 fmt::format("resources.ranks.min {} is more than resources.ranks.max {}",
                             resources.ranks_min, resources.ranks_max));
  }

  JobSpec& spec_;
  const Places& places_;
};

}  // namespace

Result<> resolve_job(JobSpec& spec, const Places& places) {
  JobCheck check(spec, places);
  if (Result<> checked = check.retries(); !checked) return checked;
  if (Result<> checked = check.any(); !checked) return checked;
  switch (spec.kind) {
    case JobKind::train: return check.train();
    case JobKind::serve: return check.serve();
    case JobKind::run: return check.run();
    default: return Error{ErrorCode::internal, "a kind without checks was parsed"};
  }
}

}  // namespace tutti::spec
