// tutti nodes | node | drain | undrain.
#include <fmt/core.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include <memory>
#include <vector>

#include "coordinator/api/http_client.h"
#include "ops/cli/client/connection.h"
#include "ops/cli/client/fields.h"
#include "ops/cli/text/job_text.h"
#include "ops/cli/verbs.h"
#include "protocol/spec/parse.h"
#include "protocol/spec/quantity.h"

namespace tutti::cli {

namespace {

int show_nodes(const Session& session) {
  Connection connection;
  const Result<boost::json::value> answer = connection.api().get("/api/v1/nodes");
  if (!answer) return fail(answer.error());
  const Paint paint = session.out_is_terminal ? Paint::coloured : Paint::plain;
  print(session.json() ? json_line(*answer) : nodes_table(list_of(*answer, "nodes"), paint));
  return kDone;
}

int show_node(const std::string& name, const Session& session) {
  Connection connection;
  const Result<boost::json::value> answer = connection.api().get("/api/v1/nodes");
  if (!answer) return fail(answer.error());
  for (const boost::json::value& node : list_of(*answer, "nodes")) {
    if (text_of(node, "name") != name) continue;
    const Paint paint = session.out_is_terminal ? Paint::coloured : Paint::plain;
    print(session.json() ? json_line(node) : node_page(node, paint));
    return kDone;
  }
  std::vector<std::string> names;
  for (const boost::json::value& node : list_of(*answer, "nodes"))
    names.push_back(text_of(node, "name"));
  const std::string_view near =
      spec::nearest_word(name, std::vector<std::string_view>(names.begin(), names.end()));
  return fail(kUsage, fmt::format("no node \"{}\"; {}", name,
                                  near.empty() ? "`tutti nodes` lists them"
                                               : fmt::format("did you mean \"{}\"?", near)));
}

struct DrainOptions {
  std::string node;
  std::string reason;
  std::string deadline;
};

int drain(const DrainOptions& options, const Session& session) {
  boost::json::object body{{"reason", options.reason}};
  if (!options.deadline.empty()) {
    const auto ms = spec::parse_duration_ms(options.deadline);
    if (!ms || *ms == 0) return fail(kUsage, "--deadline must be a duration such as 60s or 10m");
    body["deadline_ms"] = *ms;
  }
  Connection connection;
  const auto done =
      connection.api().post(fmt::format("/api/v1/nodes/{}/drain", api::encode_query(options.node)),
                            body, Api::Repeat::allowed);
  if (!done) return fail(done.error());
  print(session.json() ? json_line(*done)
                       : fmt::format("{} takes no new work; `tutti node {}` shows what is left\n",
                                     options.node, options.node));
  return kDone;
}

int undrain(const std::string& node, const Session& session) {
  Connection connection;
  const auto done =
      connection.api().post(fmt::format("/api/v1/nodes/{}/undrain", api::encode_query(node)),
                            boost::json::object{}, Api::Repeat::allowed);
  if (!done) return fail(done.error());
  print(session.json() ? json_line(*done) : fmt::format("{} takes work again\n", node));
  return kDone;
}

}  // namespace

Action declare_nodes(Arguments&) {
  return [](Session& session) { return show_nodes(session); };
}

Action declare_node(Arguments& arguments) {
  auto name = std::make_shared<std::string>();
  arguments.word("NODE", *name, "node name");
  return [name](Session& session) { return show_node(*name, session); };
}

Action declare_drain(Arguments& arguments) {
  auto options = std::make_shared<DrainOptions>();
  arguments.word("NODE", options->node, "node name");
  arguments.option("--reason", options->reason, "why, for those who ask later");
  arguments.required();
  arguments.option("--deadline", options->deadline,
                   "empty by then, as in 10m (default: the cluster's)");
  arguments.epilogue(
      "The node gets no new work; its training jobs save and go on elsewhere, and it is empty by "
      "the\ndeadline. `tutti undrain` takes it back.");
  return [options](Session& session) { return drain(*options, session); };
}

Action declare_undrain(Arguments& arguments) {
  auto name = std::make_shared<std::string>();
  arguments.word("NODE", *name, "node name");
  return [name](Session& session) { return undrain(*name, session); };
}

}  // namespace tutti::cli
