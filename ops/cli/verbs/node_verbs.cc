// tutti nodes | node.
#include <fmt/core.h>

#include <boost/json/array.hpp>

#include <memory>

#include "ops/cli/client/connection.h"
#include "ops/cli/client/fields.h"
#include "ops/cli/text/job_text.h"
#include "ops/cli/verbs.h"

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
  return fail(kUsage, fmt::format("no node \"{}\"; `tutti nodes` lists them", name));
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

}  // namespace tutti::cli
