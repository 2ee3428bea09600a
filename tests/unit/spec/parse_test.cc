#include "protocol/spec/parse.h"

#include <catch2/catch.hpp>

namespace tutti::spec {
namespace {

constexpr std::string_view kTrain = R"(
name: kjv-small
kind: train
model: {family: llama, layers: 4, width: 192, heads: 6, vocabulary: 2048}
data: {text: [corpus.txt], sequence: 256}
train: {steps: 2000, batch: 64, seed: 3, optimizer: {name: adamw, rate: 1e-3, betas: [0.9, 0.99]},
        schedule: {name: cosine, warmup: 100}}
parallel: auto
resources: {device: any, ranks: {min: 1, max: 4}, memory: 2GiB, labels: {zone: a}}
checkpoint: {every: 200, keep: 3}
on_loss: {of_node: replace, wait: 90s}
retries: {user: 0, infrastructure: 20}
priority: -3
limit: {time: 1h, queued: 2d}
)";

constexpr std::string_view kRun = R"(
name: sweep
kind: run
command: [python3, train.py, --seed, "${index}", 7, "", "two\nlines \"and\" quotes\\",
          ä€𝄞, "true", " x"]
env: {OMP_NUM_THREADS: 1, EMPTY: "", "odd key": "~"}
folder: /tmp/x y
resources: {ranks: 2, cores: 1}
)";

constexpr std::string_view kServe = R"(
name: answers
kind: serve
model: {path: /models/kjv}
serve: {batch_max: 4, tokens_max: 512, weights: q4_k}
)";

JobSpec parsed(std::string_view yaml, std::vector<std::string> overrides = {}) {
  const Result<JobSpec> spec = parse_job_spec(yaml, {"job.yaml", std::move(overrides)});
  INFO((spec ? "" : spec.error().message));
  REQUIRE(spec);
  return *spec;
}

TEST_CASE("spec: a train job is read with every key, and the rest follows from it") {
  const JobSpec spec = parsed(kTrain);
  CHECK(spec.name == "kjv-small");
  CHECK(spec.kind == JobKind::train);
  CHECK(spec.model.kv_heads == 6);
  CHECK(spec.model.feed_forward == 512);
  CHECK(spec.data.text == std::vector<std::string>{"corpus.txt"});
  CHECK(spec.data.shuffle);
  CHECK(spec.train.steps == 2000);
  CHECK(spec.train.optimizer.betas == std::vector<double>{0.9, 0.99});
  CHECK(spec.train.schedule.warmup == 100);
  CHECK(spec.parallel.shards == 8);
  CHECK(spec.resources.ranks_min == 1);
  CHECK(spec.resources.ranks_max == 4);
  CHECK(spec.resources.memory_bytes == std::uint64_t{2} << 30);
  CHECK(spec.resources.labels.at("zone") == "a");
  CHECK(spec.on_loss.wait_ms == 90'000);
  CHECK(spec.priority == -3);
  CHECK(spec.limit.time_ms == 3'600'000);
  CHECK(spec.limit.queued_ms == 172'800'000);
}

TEST_CASE("spec: a run job keeps its words as they are written") {
  const JobSpec spec = parsed(kRun);
  CHECK(spec.command == std::vector<std::string>{"python3", "train.py", "--seed", "${index}", "7",
                                                 "", "two\nlines \"and\" quotes\\", "ä€𝄞", "true",
                                                 " x"});
  CHECK(spec.env == std::map<std::string, std::string>{
                        {"OMP_NUM_THREADS", "1"}, {"EMPTY", ""}, {"odd key", "~"}});
  CHECK(spec.resources.ranks_min == 2);
  CHECK(spec.resources.ranks_max == 2);
}

TEST_CASE("spec: the resolved spec of every kind parses to an equal value") {
  for (const std::string_view yaml : {kTrain, kRun, kServe}) {
    const JobSpec spec = parsed(yaml);
    const std::string text = to_yaml(spec);
    INFO(text);
    CHECK(parsed(text) == spec);
    CHECK(to_yaml(parsed(text)) == text);
  }
  const JobSpec of_path =
      parsed(kTrain, {"model={path: /m}", "train.resume=/c/step-7", "train.stop=12",
                      "train.optimizer.epsilon=1e-11", "train.micro=2", "parallel={data: 2}"});
  CHECK(parsed(to_yaml(of_path)) == of_path);
  CHECK(of_path.resources.ranks_min == 2);
}

TEST_CASE("spec: overrides replace, add and open sections, and are read as YAML") {
  const JobSpec spec =
      parsed(kTrain, {"train.steps=10", "parallel.shards=2", "resources.ranks=2", "train.clip=0",
                      "data.text=[a.txt, b.txt]", "on_loss.wait=500ms", "name=x"});
  CHECK(spec.train.steps == 10);
  CHECK(spec.parallel.shards == 2);
  CHECK(spec.resources.ranks_max == 2);
  CHECK(spec.train.clip == 0);
  CHECK(spec.data.text.size() == 2);
  CHECK(spec.on_loss.wait_ms == 500);
  CHECK(spec.name == "x");
  CHECK(parsed(kTrain, {"data.tokenizer="}).data.tokenizer.empty());
}

TEST_CASE("spec: the number of ranks follows parallel.data where resources say nothing") {
  const std::string_view one =
      "kind: train\nname: a\nmodel: {path: m}\ndata: {tokens: [t.npy], sequence: 8}\n"
      "train: {steps: 1, batch: 3}\n";
  CHECK(parsed(one).resources.ranks_max == 1);
  CHECK(parsed(one).parallel.shards == 2);
  CHECK(parsed(one, {"parallel.data=2"}).resources.ranks_min == 2);
  CHECK(parsed(one, {"resources.ranks.min=2"}).resources.ranks_max == 2);
  CHECK(parsed(one, {"resources.ranks.max=2"}).resources.ranks_min == 1);
}

}  // namespace
}  // namespace tutti::spec
