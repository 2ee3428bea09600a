// Reads a document into a struct by its key table, strictly: the first thing that is wrong is an
// error.
//
// Errors: invalid_argument (unknown key, key of another kind, wrong type, out of range, missing),
// unsupported (a key or word that only a later version has).
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "protocol/base/result.h"
#include "protocol/spec/document.h"
#include "protocol/spec/key_table.h"

namespace tutti::spec {

struct FillOptions {
  Kinds kinds = kEvery;        // which keys belong
  std::string_view kind_name;  // for errors; empty: a file without kinds
};

// Where the document gives each key and section, by dotted path; "" is the whole. What is not here
// was left out.
using Places = std::map<std::string, Place, std::less<>>;

Result<Places> fill(const Node& document, const Table& table, void* object,
                    const FillOptions& options);

// One value into one member; `path` is for errors.
Result<> read_value(const Node& node, const Key& key, Target target);

// The value as YAML on one line, or nothing where it is unset: empty, or outside of what may be
// written.
std::string print_value(const Key& key, Target target);

// Text as YAML: plain where that reads back as the same text, else in double quotes.
std::string quote(std::string_view text);

// `; did you mean "steps"?`, or `; valid: a, b` if nothing is near and there are few, or nothing.
std::string suggestion(std::string_view word, const std::vector<std::string_view>& candidates);

}  // namespace tutti::spec
