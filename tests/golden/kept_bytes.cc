#include "tests/golden/kept_bytes.h"

#include <msgpuck.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

namespace tutti::golden {

namespace {

std::string bytes_of(std::string_view hex) {
  std::string out;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    out += static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16));
  }
  return out;
}

std::string text_at(const char*& at) {
  std::uint32_t bytes = 0;
  const char* text = mp_decode_str(&at, &bytes);
  return {text, bytes};
}

std::string missing_at(const char*& older, const char*& newer, const std::string& path);

std::string missing_field(const char*& older, const char*& newer, const std::string& path) {
  std::map<std::string, const char*> fields;
  for (std::uint32_t left = mp_decode_map(&newer); left > 0; --left) {
    const std::string name = text_at(newer);
    fields[name] = newer;
    mp_next(&newer);
  }
  for (std::uint32_t left = mp_decode_map(&older); left > 0; --left) {
    const std::string name = text_at(older);
    const auto at = fields.find(name);
    if (at == fields.end()) return path + "." + name;
    const char* value = at->second;
    const std::string lost = missing_at(older, value, path + "." + name);
    if (!lost.empty()) return lost;
  }
  return {};
}

// Both positions move on.
std::string missing_at(const char*& older, const char*& newer, const std::string& path) {
  if (mp_typeof(*older) == MP_MAP && mp_typeof(*newer) == MP_MAP) {
    return missing_field(older, newer, path);
  }
  if (mp_typeof(*older) == MP_ARRAY && mp_typeof(*newer) == MP_ARRAY) {
    const std::uint32_t count = mp_decode_array(&older);
    if (mp_decode_array(&newer) != count) return path + "[]";
    for (std::uint32_t i = 0; i < count; ++i) {
      const std::string lost = missing_at(older, newer, path + "[" + std::to_string(i) + "]");
      if (!lost.empty()) return lost;
    }
    return {};
  }
  const char* const older_from = older;
  const char* const newer_from = newer;
  mp_next(&older);
  mp_next(&newer);
  const std::string_view was(older_from, static_cast<std::size_t>(older - older_from));
  const std::string_view is(newer_from, static_cast<std::size_t>(newer - newer_from));
  return was == is ? std::string() : path;
}

void add_paths(const char*& at, const std::string& path, std::set<std::string>& out) {
  switch (mp_typeof(*at)) {
    case MP_NIL: return mp_next(&at);
    case MP_MAP:
      for (std::uint32_t left = mp_decode_map(&at); left > 0; --left) {
        const std::string name = text_at(at);
        add_paths(at, path + "." + name, out);
      }
      return;
    case MP_ARRAY:
      for (std::uint32_t left = mp_decode_array(&at); left > 0; --left) {
        add_paths(at, path + "[]", out);
      }
      return;
    default: out.insert(path); return mp_next(&at);
  }
}

}  // namespace

std::vector<Row> read_rows(const std::string& file) {
  std::ifstream in(file);
  std::vector<Row> out;
  for (std::string line; std::getline(in, line);) {
    if (line.empty() || line.front() == '#') continue;
    std::istringstream words(line);
    std::string hex;
    Row row;
    words >> row.number >> row.name >> hex;
    row.bytes = bytes_of(hex);
    out.push_back(std::move(row));
  }
  return out;
}

std::vector<Row> read_all_rows(const std::string& folder) {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".txt") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  std::vector<Row> out;
  for (const std::string& file : files) {
    for (Row& row : read_rows(file)) out.push_back(std::move(row));
  }
  return out;
}

void write_row(std::ostream& out, const Row& row) {
  constexpr char kDigits[] = "0123456789abcdef";
  out << row.number << ' ' << row.name << ' ';
  for (const char c : row.bytes) {
    const auto byte = static_cast<unsigned char>(c);
    out << kDigits[byte >> 4] << kDigits[byte & 15];
  }
  out << '\n';
}

std::string missing(std::string_view older, std::string_view newer) {
  const char* was = older.data();
  const char* is = newer.data();
  return missing_at(was, is, "");
}

std::set<std::string> paths_of(std::string_view body) {
  std::set<std::string> out;
  const char* at = body.data();
  add_paths(at, "", out);
  return out;
}

}  // namespace tutti::golden
