// tutti spec check | spec keys: job specs without a cluster.
#include <fmt/core.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include <memory>

#include "ops/cli/client/fields.h"
#include "ops/cli/spec_file.h"
#include "ops/cli/text/table.h"
#include "ops/cli/verbs.h"
#include "protocol/spec/help.h"
#include "protocol/spec/parse.h"

namespace tutti::cli {

namespace {

struct CheckOptions {
  std::string file;
  std::vector<std::string> overrides;
};

int check(const CheckOptions& options, const Session& session) {
  const Result<spec::JobSpec> spec = read_spec_file(options.file, options.overrides);
  if (!spec) return fail(spec.error());
  const std::string resolved = spec::to_yaml(*spec);
  print(session.json()
            ? json_line(boost::json::object{
                  {"name", spec->name}, {"kind", spec::to_string(spec->kind)}, {"spec", resolved}})
            : resolved);
  return kDone;
}

int keys(const std::string& section, const Session& session) {
  boost::json::array rows;
  Table table({{"KEY"}, {"TAKES"}, {"KINDS"}, {"DEFAULT"}, {"MEANING"}});
  for (const spec::KeyHelp& key : spec::job_key_help()) {
    const bool shown = section.empty() || key.path == section ||
                       key.path.compare(0, section.size() + 1, section + '.') == 0;
    if (!shown) continue;
    table.add({key.path, key.takes, key.kinds, key.without, key.doc});
    rows.push_back(boost::json::object{{"key", key.path},
                                       {"takes", key.takes},
                                       {"kinds", key.kinds},
                                       {"default", key.without},
                                       {"doc", key.doc}});
  }
  if (rows.empty()) {
    return fail(kUsage,
                fmt::format("no key or section \"{}\"; `tutti spec keys` lists all", section));
  }
  const Paint paint = session.out_is_terminal ? Paint::coloured : Paint::plain;
  print(session.json() ? json_line(rows) : table.print(paint));
  return kDone;
}

}  // namespace

Action declare_spec_check(Arguments& arguments) {
  auto options = std::make_shared<CheckOptions>();
  arguments.word("FILE", options->file, "job spec, YAML; - reads standard input");
  arguments.repeated("--set", options->overrides, "set one key, as in --set train.steps=10");
  arguments.epilogue("Prints the resolved spec: every default filled in. Needs no cluster.");
  return [options](Session& session) { return check(*options, session); };
}

Action declare_spec_keys(Arguments& arguments) {
  auto section = std::make_shared<std::string>();
  arguments.optional_word("SECTION", *section, "only these, such as train or train.optimizer");
  return [section](Session& session) { return keys(*section, session); };
}

}  // namespace tutti::cli
