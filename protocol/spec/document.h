// A YAML document as a tree that remembers where everything was written.
//
// The tree holds what a specification may use of YAML and nothing else: maps, lists and scalars.
// Anchors, aliases, merge keys, tags, a second document and keys given twice are errors, so that
// what a reader sees is what is meant, and a small text can never unfold into a large one.
//
// Limits: kSpecBytesMax bytes (parse.h), kDepthMax levels, kNodesMax nodes, kKeysMax keys a map;
// text must be UTF-8 without NUL. Errors: invalid_argument, one line that begins with
// `file:line:column: `.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "protocol/base/result.h"

namespace tutti::spec {

inline constexpr std::size_t kDepthMax = 16;
inline constexpr std::size_t kNodesMax = 100'000;
inline constexpr std::size_t kKeysMax = 4'096;  // of one map

// Where something was written. `source` is a file's name or an override (`--set a.b=c`); line 0: a
// whole override.
struct Place {
  const std::string* source = nullptr;  // owned by the Document
  std::int32_t line = 0;                // from 1
  std::int32_t column = 0;              // from 1, in characters
};

struct Node {
  enum class Form { null, scalar, list, map };
  Form form = Form::null;
  bool quoted = false;      // scalar: "5" is text, 5 is a number
  std::string text;         // scalar
  std::vector<Node> items;  // list: its items; map: its values
  std::vector<Node> keys;   // map: scalars, as many as items
  Place place;

  // The value of a key of this map, or nullptr.
  const Node* find(std::string_view key) const;
  Node* find(std::string_view key);
};

// The document's one top-level map. `source` must outlive the result.
Result<Node> parse_document(std::string_view yaml, const std::string& source);

// Sets a value as `--set train.steps=10` gives it: the part after `=` is YAML, maps on the way are
// made. `source` is the whole flag, shown in errors about it, and must outlive the node.
Result<> apply_override(Node& root, std::string_view assignment, const std::string& source);

// `invalid_argument: place: message`.
Error error_at(const Place& place, std::string_view message,
               ErrorCode code = ErrorCode::invalid_argument);

// What a reader would call it, for errors: `"abc"`, `12`, `a list`, `a map`, `nothing`.
std::string describe(const Node& node);

}  // namespace tutti::spec
