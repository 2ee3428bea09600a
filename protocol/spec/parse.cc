#include "protocol/spec/parse.h"

#include <fmt/format.h>

#include "protocol/spec/document.h"
#include "protocol/spec/fill.h"
#include "protocol/spec/job_check.h"
#include "protocol/spec/job_keys.h"

namespace tutti::spec {

namespace {

struct KindRow {
  std::string_view name;
  JobKind kind;
  Kinds bits;  // 0: not in this version
};

constexpr KindRow kKinds[] = {
    {"train", JobKind::train, kTrain},  {"serve", JobKind::serve, kServe},
    {"run", JobKind::run, kRun},        {"generate", JobKind::generate, 0},
    {"evaluate", JobKind::evaluate, 0}, {"tune", JobKind::tune, 0},
    {"check", JobKind::check, 0},       {"benchmark", JobKind::benchmark, 0},
};

Kinds bits_of(JobKind kind) {
  for (const KindRow& row : kKinds) {
    if (row.kind == kind) return row.bits;
  }
  return 0;
}

Result<JobKind> read_kind(const Node& root) {
  const Node* node = root.find("kind");
  if (node == nullptr) return error_at(root.place, "kind is missing: train, serve or run");
  std::vector<std::string_view> names;
  for (const KindRow& row : kKinds) {
    if (node->form == Node::Form::scalar && node->text == row.name) {
      if (row.bits != 0) return row.kind;
      return error_at(
          node->place,
          fmt::format("kind {} is not supported by this version (train, serve and run are)",
                      row.name),
          ErrorCode::unsupported);
    }
    if (row.bits != 0) names.push_back(row.name);
  }
  if (node->form != Node::Form::scalar) {
    return error_at(node->place,
                    fmt::format("kind must be train, serve or run, not {}", describe(*node)));
  }
  return error_at(node->place,
                  fmt::format("unknown kind {}{}", describe(*node), suggestion(node->text, names)));
}

// The rest of the document, which the key table describes.
void remove_key(Node& root, std::string_view key) {
  for (std::size_t i = 0; i < root.keys.size(); ++i) {
    if (root.keys[i].text != key) continue;
    root.keys.erase(root.keys.begin() + static_cast<std::ptrdiff_t>(i));
    root.items.erase(root.items.begin() + static_cast<std::ptrdiff_t>(i));
    return;
  }
}

bool is_printed(const JobSpec& spec, const Key& key) {
  if ((key.kinds & bits_of(spec.kind)) == 0) return false;
  // A directory says the shape itself.
  return spec.model.path.empty() || !within(key.path, "model") || key.path == "model.path";
}

// Opens the sections of `path` that are not open yet and leaves the key's own name.
void print_sections(std::string& yaml, std::string_view& open, std::string_view path) {
  std::size_t from = 0;
  std::size_t depth = 0;
  for (std::size_t dot = path.find('.'); dot != std::string_view::npos;
       dot = path.find('.', from)) {
    if (!within(open, path.substr(0, dot))) {
      yaml += fmt::format("{:{}}{}:\n", "", depth * 2, path.substr(from, dot - from));
    }
    from = dot + 1;
    ++depth;
  }
  yaml += fmt::format("{:{}}{}: ", "", depth * 2, path.substr(from));
  open = path.substr(0, path.rfind('.') == std::string_view::npos ? 0 : path.rfind('.'));
}

}  // namespace

Result<JobSpec> parse_job_spec(std::string_view yaml, const ParseOptions& options) {
  Result<Node> root = parse_document(yaml, options.file);
  if (!root) return root.error();
  std::vector<std::string> sources;
  sources.reserve(options.overrides.size());  // places point into it
  for (const std::string& assignment : options.overrides) {
    sources.push_back("--set " + assignment);
    if (Result<> applied = apply_override(*root, assignment, sources.back()); !applied)
      return applied.error();
  }

  const Result<JobKind> kind = read_kind(*root);
  if (!kind) return kind.error();
  JobSpec spec;
  spec.kind = *kind;
  remove_key(*root, "kind");
  for (const Node& key : root->keys) {
    if (key.text != "faults") continue;
    return error_at(key.place,
                    "faults are not a job's: `tutti fault run FILE` reads them from a file that "
                    "names this one (spec: FILE)");
  }
  const Result<Places> places = fill(*root, job_table(), &spec, {bits_of(*kind), to_string(*kind)});
  if (!places) return places.error();
  if (Result<> resolved = resolve_job(spec, *places); !resolved) return resolved.error();
  return spec;
}

std::string to_yaml(const JobSpec& spec) {
  JobSpec copy = spec;  // reach() gives pointers to members that can be written
  std::string yaml = fmt::format("name: {}\nkind: {}\n", quote(spec.name), to_string(spec.kind));
  std::string_view open;
  for (const Key& key : job_table().keys) {
    if (key.path == "name" || !is_printed(spec, key)) continue;
    const std::string value = print_value(key, key.at(&copy));
    if (value.empty()) continue;
    print_sections(yaml, open, key.path);
    yaml += value;
    yaml += '\n';
  }
  return yaml;
}

std::string_view to_string(JobKind kind) {
  for (const KindRow& row : kKinds) {
    if (row.kind == kind) return row.name;
  }
  return "unknown";
}

bool takes_gpus(const JobSpec& spec) {
  const bool computes = spec.kind == JobKind::train || spec.kind == JobKind::serve;
  return computes && spec.resources.device == "gpu";
}

}  // namespace tutti::spec
