// Any spec that is accepted prints as YAML that is accepted as the same value: tried on made-up
// values for every row of the key table, odd texts included.
#include <catch2/catch.hpp>

#include <algorithm>

#include "protocol/base/rng.h"
#include "protocol/spec/fill.h"
#include "protocol/spec/job_keys.h"
#include "protocol/spec/parse.h"
#include "protocol/spec/quantity.h"

namespace tutti::spec {
namespace {

std::string any_text(Rng& rng) {
  constexpr std::string_view kPieces[] = {
      "a",  "Z9",   "/p/q", "\"", "\\",  "\n",      "\t",    " ", "'", "#", ": ",
      "- ", "{",    "]",    ",",  "&x",  "*y",      "!",     "%", "@", "`", "|",
      ">",  "true", "null", "~",  "1e3", "${rank}", "größe", "𝄞", "?", "="};
  std::string text;
  for (std::uint64_t i = rng.below(6); i > 0; --i) text += kPieces[rng.below(std::size(kPieces))];
  return text;
}

std::string any_number(const Takes& takes, Rng& rng) {
  double value = takes.min + rng.uniform() * (std::min(takes.max, 1e6) - takes.min);
  Key key;
  key.takes = takes;
  return print_value(key, &value);
}

// A value as YAML on one line.
std::string any_value(const Takes& takes, Rng& rng) {
  switch (takes.form) {
    case Form::text: return quote(any_text(rng));
    case Form::name: return "n" + std::to_string(rng.below(100));
    case Form::choice: return std::string(takes.choices[rng.below(takes.choices.size())]);
    case Form::flag: return rng.chance(0.5) ? "true" : "false";
    case Form::whole: {
      const auto span = static_cast<std::uint64_t>(std::min(takes.max - takes.min, 64.0)) + 1;
      return std::to_string(static_cast<std::int64_t>(takes.min) +
                            static_cast<std::int64_t>(rng.below(span)));
    }
    case Form::number: return any_number(takes, rng);
    case Form::time: return quote(print_time(rng.below(4'000'000'000) * 1'000));
    case Form::wholes: return "[" + std::to_string(1 + rng.below(9)) + ", 12]";
    case Form::duration: return std::to_string(rng.below(5'000)) + "ms";
    case Form::patience: return rng.chance(0.5) ? "never" : std::to_string(1 + rng.below(99)) + "s";
    case Form::bytes: return std::to_string(rng.below(5'000)) + "KiB";
    case Form::texts: return "[" + quote("x" + any_text(rng)) + ", " + quote(any_text(rng)) + "]";
    case Form::numbers: return "[" + any_number(takes, rng) + ", " + any_number(takes, rng) + "]";
    case Form::text_maps:
      return "[{class: user, log: " + quote("x" + any_text(rng)) +
             "}, {class: infrastructure, code: " + std::to_string(1 + rng.below(255)) + "}]";
    case Form::text_map:
      return "{" + quote("k" + std::to_string(rng.below(9))) + ": " + quote(any_text(rng)) + "}";
  }
  return "";
}

TEST_CASE("spec: whatever is accepted prints as what is accepted as the same value") {
  struct Base {
    Kinds kinds;
    std::string_view yaml;
  };
  constexpr Base kBases[] = {
      {kTrain,
       "name: a\nkind: train\ntrain: {steps: 100, batch: 64}\ndata: {sequence: 8, text: [t]}\n"
       "model: {family: llama, layers: 1, width: 64, heads: 4, vocabulary: 300}\n"},
      {kServe, "name: a\nkind: serve\nmodel: {path: m}\n"},
      {kRun, "name: a\nkind: run\ncommand: [x]\n"}};
  Rng rng(11);
  for (const Base& base : kBases) {
    int accepted = 0;
    for (int round = 0; round < 2'000; ++round) {
      std::vector<std::string> overrides;
      for (const Key& key : job_table().keys) {
        if ((key.kinds & base.kinds) == 0 || !rng.chance(0.1)) continue;
        overrides.push_back(std::string(key.path) + "=" + any_value(key.takes, rng));
      }
      const Result<JobSpec> spec = parse_job_spec(base.yaml, {"base", overrides});
      if (!spec) continue;  // contradictions come about by chance
      ++accepted;
      const std::string yaml = to_yaml(*spec);
      const Result<JobSpec> again = parse_job_spec(yaml);
      INFO(yaml << (again ? "" : again.error().message));
      REQUIRE(again);
      REQUIRE(*again == *spec);
      REQUIRE(to_yaml(*again) == yaml);
    }
    CHECK(accepted > 200);
  }
}

}  // namespace
}  // namespace tutti::spec
