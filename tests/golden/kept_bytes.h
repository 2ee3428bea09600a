// Bytes that an earlier version wrote, kept as rows of text, and whether this version still reads
// all that they hold.
//
// A row is `NUMBER NAME HEX`; lines that begin with # are not read. Files of one folder are one
// set: what a version adds goes into a file of its own, and none is ever changed. `lost_by` finds a
// field that was renamed, narrowed or dropped; `not_kept` a field that no row holds.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/wire/codec.h"
#include "tests/support/sample.h"

namespace tutti::golden {

struct Row {
  std::uint16_t number = 0;
  std::string name;
  std::string bytes;
};

std::vector<Row> read_rows(const std::string& file);
// Of all files of a folder whose name ends with .txt, in the order of their names.
std::vector<Row> read_all_rows(const std::string& folder);
void write_row(std::ostream& out, const Row& row);

// Both are bodies (codec.h). Empty, or the path of the first thing that `older` holds and `newer`
// does not.
std::string missing(std::string_view older, std::string_view newer);
// The paths of all that a body holds: `.processes[].held.step`. Nothing and empty lists are not
// held.
std::set<std::string> paths_of(std::string_view body);

// What to do where a field is kept in no file.
inline std::string how_to_keep(const std::string& folder, const std::string& test) {
  return "write it into a new file: TUTTI_GOLDEN_OUT=" + folder + "/NAME.txt build/ci/bin/" + test +
         " \"[write]\"";
}

// The type's name without its namespaces.
template <class T>
std::string name_of() {
  std::string name = __PRETTY_FUNCTION__;
  name = name.substr(name.find("T = ") + 4);
  name = name.substr(0, name.find_first_of(";]"));
  return name.substr(name.rfind(':') + 1);
}

template <class T>
std::string lost_by(std::string_view body) {
  const Result<T> value = wire::decode_body<T>(body);
  if (!value) return value.error().message;
  return missing(body, wire::encode_body(*value));
}

// The first field of T that none of the bodies holds; empty: they hold all.
template <class T>
std::string not_kept(const std::vector<std::string>& bodies) {
  std::set<std::string> kept;
  for (const std::string& body : bodies) kept.merge(paths_of(body));
  for (const std::string& path : paths_of(wire::encode_body(sample::filled<T>()))) {
    if (!kept.contains(path)) return path;
  }
  return {};
}

}  // namespace tutti::golden
