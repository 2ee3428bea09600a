#include "protocol/spec/help.h"

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

}  // namespace tutti::spec
