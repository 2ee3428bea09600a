#include "protocol/spec/fill.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "protocol/spec/parse.h"

namespace tutti::spec {

namespace {

std::string_view last_part(std::string_view path) { return path.substr(path.rfind('.') + 1); }

std::string join_path(std::string_view section, std::string_view key) {
  return section.empty() ? std::string(key) : fmt::format("{}.{}", section, key);
}

std::string_view parent_of(std::string_view path) {
  const std::size_t dot = path.rfind('.');
  return dot == std::string_view::npos ? std::string_view{} : path.substr(0, dot);
}

// One walk over one document.
class Filler {
 public:
  Filler(const Table& table, void* object, const FillOptions& options)
      : table_(table), object_(object), options_(options) {}

  Result<Places> run(const Node& document) {
    if (Result<> walked = walk(document, ""); !walked) return walked.error();
    if (Result<> complete = check_required(document); !complete) return complete.error();
    return std::move(places_);
  }

 private:
  Result<> walk(const Node& map, const std::string& section) {
    places_[section] = map.place;
    for (std::size_t i = 0; i < map.keys.size(); ++i) {
      if (Result<> taken = take(map.keys[i], map.items[i], section); !taken) return taken;
    }
    return {};
  }

  Result<> take(const Node& key_node, const Node& value, const std::string& section) {
    const std::string path = join_path(section, key_node.text);
    if (const Key* key = find_key(path)) {
      if (Result<> belongs = check_kind(key_node, key->kinds, path); !belongs) return belongs;
      places_[path] = value.place;
      return read_value(value, *key, key->at(object_));
    }
    if (is_section(path)) {
      if (Result<> belongs = check_kind(key_node, kinds_of(path), path); !belongs) return belongs;
      if (value.form == Node::Form::map) return walk(value, path);
      return take_shorthand(value, path);
    }
    return unknown(key_node, section, path);
  }

  Result<> take_shorthand(const Node& value, const std::string& section) {
    std::string expected = "a map of keys";
    for (const Shorthand& shorthand : table_.shorthands) {
      if (shorthand.section != section) continue;
      if (!shorthand.word.empty()) {
        places_[section] = value.place;
        if (value.form == Node::Form::scalar && value.text == shorthand.word) return {};
        expected = fmt::format("{} or a map of keys", shorthand.word);
      } else if (value.form == Node::Form::scalar) {
        places_[section] = value.place;
        for (const std::string_view path : shorthand.sets) {
          Key key = *find_key(path);
          key.path = section;  // errors speak of what was written
          places_[std::string(path)] = value.place;
          if (Result<> read = read_value(value, key, key.at(object_)); !read) return read;
        }
        return {};
      }
    }
    return error_at(value.place,
                    fmt::format("{} must be {}, not {}", section, expected, describe(value)));
  }

  Result<> check_kind(const Node& key_node, Kinds kinds, std::string_view path) const {
    if ((kinds & options_.kinds) != 0) return {};
    return error_at(key_node.place,
                    fmt::format("key \"{}\" belongs to jobs of kind {}, and this one is of kind {}",
                                path, kinds_text(kinds), options_.kind_name));
  }

  Result<> unknown(const Node& key_node, const std::string& section,
                   const std::string& path) const {
    for (const LaterKey& later : table_.later) {
      if (within(path, later.path)) {
        return error_at(key_node.place,
                        fmt::format("key \"{}\" is not supported by this version", later.path),
                        ErrorCode::unsupported);
      }
    }
    const std::string message = fmt::format("unknown key \"{}\"{}{}", key_node.text,
                                            section.empty() ? "" : " in ", section);
    const std::vector<std::string_view> names = names_in(section);
    std::string hint = nearest_word(key_node.text, names).empty() ? elsewhere(key_node.text) : "";
    if (hint.empty()) hint = suggestion(key_node.text, names);
    return error_at(key_node.place, message + hint);
  }

  // `; did you mean "train.steps"?` for a key that stands in another section.
  std::string elsewhere(std::string_view name) const {
    for (const Key& key : table_.keys) {
      if ((key.kinds & options_.kinds) != 0 && last_part(key.path) == name) {
        return fmt::format("; did you mean \"{}\"?", key.path);
      }
    }
    return "";
  }

  // The keys and sections directly in a section that belong to this kind.
  std::vector<std::string_view> names_in(std::string_view section) const {
    std::vector<std::string_view> names;
    for (const Key& key : table_.keys) {
      if ((key.kinds & options_.kinds) == 0 || !within(key.path, section)) continue;
      std::string_view rest = key.path.substr(section.empty() ? 0 : section.size() + 1);
      rest = rest.substr(0, rest.find('.'));
      if (std::find(names.begin(), names.end(), rest) == names.end()) names.push_back(rest);
    }
    return names;
  }

  Result<> check_required(const Node& document) const {
    for (const Key& key : table_.keys) {
      if (key.need != Need::required || (key.kinds & options_.kinds) == 0) continue;
      if (places_.count(key.path) != 0) continue;
      std::string_view section = parent_of(key.path);
      const auto at = places_.find(section);
      return error_at(at == places_.end() ? document.place : at->second,
                      fmt::format("{} is missing: {}", key.path, key.doc));
    }
    return {};
  }

  const Key* find_key(std::string_view path) const {
    const auto at = std::find_if(table_.keys.begin(), table_.keys.end(),
                                 [&](const Key& key) { return key.path == path; });
    return at == table_.keys.end() ? nullptr : &*at;
  }

  bool is_section(std::string_view path) const { return kinds_of(path) != 0; }

  Kinds kinds_of(std::string_view section) const {
    Kinds kinds = 0;
    for (const Key& key : table_.keys) {
      if (key.path != section && within(key.path, section)) kinds |= key.kinds;
    }
    return kinds;
  }

  const Table& table_;
  void* object_;
  const FillOptions& options_;
  Places places_;
};

}  // namespace

std::string kinds_text(Kinds kinds) {
  std::string text;
  const auto add = [&](Kinds kind, std::string_view name) {
    if ((kinds & kind) != 0) text += (text.empty() ? "" : " and ") + std::string(name);
  };
  add(kTrain, "train");
  add(kServe, "serve");
  add(kRun, "run");
  return text;
}

bool within(std::string_view path, std::string_view section) {
  if (section.empty()) return true;
  return path.substr(0, section.size()) == section &&
         (path.size() == section.size() || path[section.size()] == '.');
}

std::string suggestion(std::string_view word, const std::vector<std::string_view>& candidates) {
  constexpr std::size_t kListed = 8;
  if (const std::string_view near = nearest_word(word, candidates); !near.empty()) {
    return fmt::format("; did you mean \"{}\"?", near);
  }
  if (candidates.size() > kListed) return "";
  return fmt::format("; valid: {}", fmt::join(candidates, ", "));
}

Result<Places> fill(const Node& document, const Table& table, void* object,
                    const FillOptions& options) {
  return Filler(table, object, options).run(document);
}

}  // namespace tutti::spec
