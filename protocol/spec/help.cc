#include "protocol/spec/help.h"

#include <fmt/core.h>

#include "protocol/spec/fill.h"
#include "protocol/spec/job_keys.h"
#include "protocol/spec/job_spec.h"

namespace tutti::spec {

std::vector<KeyHelp> job_key_help() {
  JobSpec defaults;
  std::vector<KeyHelp> rows;
  rows.push_back({"kind", "one of train, serve, run", "all", "required",
                  "what the job does; decides which other keys belong"});
  for (const Key& key : job_table().keys) {
    std::string without =
        key.need == Need::required ? "required" : print_value(key, key.at(&defaults));
    rows.push_back({std::string(key.path), describe(key.takes),
                    key.kinds == kEvery ? "all" : kinds_text(key.kinds), std::move(without),
                    std::string(key.doc)});
  }
  return rows;
}

std::string key_lines(std::span<const Key> keys,
                      const std::function<std::string(const Key&)>& default_of) {
  std::string text;
  for (const Key& key : keys) {
    const std::string without =
        key.need == Need::required ? std::string("required") : default_of(key);
    const std::string one_of = key.takes.form == Form::choice ? ": " + describe(key.takes) : "";
    text += fmt::format("  {:<20} {}{}{}\n", key.path, key.doc, one_of,
                        without.empty() ? "" : fmt::format(" ({})", without));
  }
  return text;
}

}  // namespace tutti::spec
