// Frames of older versions decode for ever.
//
// v1.txt holds one frame of each kind as the first released version sent it, every field set to
// something that is not its default. What decodes is encoded again, and must hold all that the old
// frame held: a field that was renamed, narrowed or dropped shows. A new version adds a file, made
// by `wire_golden_test "[write]"` with TUTTI_GOLDEN_OUT=FILE; old files never change.
#include <msgpuck.h>
#include <catch2/catch.hpp>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>

#include "protocol/wire/codec.h"
#include "protocol/wire/kinds.h"
#include "protocol/wire/link.h"

namespace tutti::wire {
namespace {

// Samples
// ------------------------------------------------------------------------------------------

template <class T>
void set(T& value, std::uint64_t& next) {
  if constexpr (std::same_as<T, std::string>) {
    value = "text-" + std::to_string(++next);
  } else if constexpr (std::same_as<T, bool>) {
    value = !value;
  } else if constexpr (std::floating_point<T>) {
    value = static_cast<T>(++next) + T{0.5};
  } else if constexpr (std::integral<T>) {
    value = static_cast<T>(++next);
  } else if constexpr (detail::kIsId<T>) {
    value.value = ++next;
  } else if constexpr (detail::DescribedEnum<T>) {
    boost::mp11::mp_for_each<boost::describe::describe_enumerators<T>>(
        [&](auto enumerator) { value = enumerator.value; });
  } else if constexpr (detail::DescribedStruct<T>) {
    boost::mp11::mp_for_each<detail::Members<T>>(
        [&](auto member) { set(value.*member.pointer, next); });
  } else {
    value.resize(2);
    for (auto& each : value) set(each, next);
  }
}

template <class Message>
std::string frame_of(std::uint16_t kind) {
  Message message;
  std::uint64_t next = 0;
  set(message, next);
  const std::string body = encode_body(message);
  FrameHeader header{.session = SessionId{5}, .generation = Generation{3}, .sequence = Sequence{9}};
  header.kind = kind;
  header.length = static_cast<std::uint32_t>(body.size());
  return encode_header(header) + body;
}

std::string hex_of(std::string_view bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    out += kDigits[byte >> 4];
    out += kDigits[byte & 15];
  }
  return out;
}

std::string bytes_of(std::string_view hex) {
  std::string out;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    out += static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16));
  }
  return out;
}

// Comparison
// ---------------------------------------------------------------------------------------

std::string text_at(const char*& at) {
  std::uint32_t bytes = 0;
  const char* text = mp_decode_str(&at, &bytes);
  return {text, bytes};
}

// Empty, or the path of the first thing that `older` holds and `newer` does not. Both positions
// move on.
std::string missing(const char*& older, const char*& newer, const std::string& path) {
  if (mp_typeof(*older) == MP_MAP && mp_typeof(*newer) == MP_MAP) {
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
      const std::string lost = missing(older, value, path + "." + name);
      if (!lost.empty()) return lost;
    }
    return {};
  }
  if (mp_typeof(*older) == MP_ARRAY && mp_typeof(*newer) == MP_ARRAY) {
    const std::uint32_t count = mp_decode_array(&older);
    if (mp_decode_array(&newer) != count) return path + "[]";
    for (std::uint32_t i = 0; i < count; ++i) {
      const std::string lost = missing(older, newer, path + "[" + std::to_string(i) + "]");
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

template <class Message>
std::string lost_by(std::string_view body) {
  const Result<Message> message = decode_body<Message>(body);
  if (!message) return message.error().message;
  const std::string again = encode_body(*message);
  const char* older = body.data();
  const char* newer = again.data();
  return missing(older, newer, "");
}

// For each row of the table: its number, and what is to be done with its type.
template <class Do, class... Messages, std::uint16_t... Numbers>
void for_each_kind(const Do& action, KindTable<Kind<Messages, Numbers>...>) {
  (action.template operator()<Messages>(Numbers), ...);
}

struct Golden {
  std::uint16_t kind = 0;
  std::string frame;
};

std::vector<Golden> read_golden(const std::string& file) {
  std::ifstream in(file);
  std::vector<Golden> out;
  for (std::string line; std::getline(in, line);) {
    if (line.empty() || line.front() == '#') continue;
    std::istringstream words(line);
    std::string name;
    std::string hex;
    Golden row;
    words >> row.kind >> name >> hex;
    row.frame = bytes_of(hex);
    out.push_back(std::move(row));
  }
  return out;
}

template <class Message>
std::string name_of() {
  std::string name = __PRETTY_FUNCTION__;
  name = name.substr(name.find("Message = ") + 10);
  name = name.substr(0, name.find_first_of(";]"));
  return name.substr(name.rfind(':') + 1);
}

}  // namespace

TEST_CASE("golden: every frame that version 1 sent still decodes, with all that it held") {
  const auto rows = read_golden("tests/golden/wire/v1.txt");
  REQUIRE(rows.size() == 31);
  std::set<std::uint16_t> seen;
  for (const Golden& row : rows) {
    const Result<FrameHeader> header = decode_header(row.frame);
    REQUIRE(header);
    CHECK(header->version == 1);
    CHECK(header->kind == row.kind);
    CHECK(header->session == SessionId{5});
    CHECK(header->generation == Generation{3});
    CHECK(header->sequence == Sequence{9});
    const std::string_view body = std::string_view(row.frame).substr(kFrameHeaderBytes);
    CHECK(body.size() == header->length);
    for_each_kind(
        [&]<class Message>(std::uint16_t kind) {
          if (kind != row.kind) return;
          INFO("kind " << kind);
          CHECK(lost_by<Message>(body) == "");
          seen.insert(kind);
        },
        Kinds{});
  }
  CHECK(seen.size() == rows.size());
}

TEST_CASE("golden: heartbeats with readings of devices still decode, and those without as before") {
  const auto rows = read_golden("tests/golden/wire/heartbeat_readings.txt");
  REQUIRE(rows.size() == 1);
  const std::string_view body = std::string_view(rows[0].frame).substr(kFrameHeaderBytes);
  CHECK(lost_by<Heartbeat>(body) == "");
  const Result<Heartbeat> heartbeat = decode_body<Heartbeat>(body);
  REQUIRE(heartbeat);
  REQUIRE(heartbeat->readings.size() == 2);
  CHECK(heartbeat->readings[1].links.size() == 2);
  CHECK(heartbeat->readings[1].throttle_reasons.size() == 2);
  CHECK(heartbeat->readings[0].temperature_celsius != 0);
  for (const Golden& row : read_golden("tests/golden/wire/v1.txt")) {
    if (row.kind != rows[0].kind) continue;
    const auto older =
        decode_body<Heartbeat>(std::string_view(row.frame).substr(kFrameHeaderBytes));
    REQUIRE(older);
    CHECK(older->progress.size() == 2);
    CHECK(older->readings.empty());
  }
}

TEST_CASE("golden: a field that a newer version added is ignored, whatever it is") {
  // {"future": {"a": [1, nil]}, "code": "x"} as a Refused.
  constexpr char kBody[] =
      "\x82\xa6"
      "future\x81\xa1"
      "a\x92\x01\xc0\xa4"
      "code\xa1x";
  const std::string body(kBody, sizeof kBody - 1);
  const Result<Refused> refused = decode_body<Refused>(body);
  REQUIRE(refused);
  CHECK(refused->code == "x");
  CHECK(refused->message.empty());
}

TEST_CASE("golden: write the frames of this version", "[.][write]") {
  const char* file = std::getenv("TUTTI_GOLDEN_OUT");
  REQUIRE(file != nullptr);
  std::ofstream out(file);
  out << "# kind, name, frame; made by: TUTTI_GOLDEN_OUT=FILE wire_golden_test \"[write]\"\n";
  for_each_kind(
      [&]<class Message>(std::uint16_t kind) {
        out << kind << ' ' << name_of<Message>() << ' ' << hex_of(frame_of<Message>(kind)) << '\n';
      },
      Kinds{});
  CHECK(out.good());
}

}  // namespace tutti::wire
