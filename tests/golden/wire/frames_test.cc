// Frames of older versions decode for ever.
//
// Each file here holds frames as a version sent them, every field set to something that is not its
// default: v1.txt the first one's, v1_whole.txt those of all kinds with the fields that were added
// later (`[write-all]`). What decodes is encoded again, and must hold all that the old frame
// held. What is added later goes into a file of its own, written by
// `TUTTI_GOLDEN_OUT=tests/golden/wire/NAME.txt wire_golden_test "[write]"`, which writes the kinds
// that have a field in no file; old files never change.
#include <catch2/catch.hpp>

#include <cstdlib>
#include <fstream>
#include <set>
#include <string>

#include "protocol/wire/codec.h"
#include "protocol/wire/kinds.h"
#include "protocol/wire/link.h"
#include "tests/golden/kept_bytes.h"
#include "tests/support/sample.h"

namespace tutti::wire {

namespace {

using golden::lost_by;
using golden::name_of;
using golden::read_rows;
using golden::Row;
using sample::for_each_kind;

constexpr const char* kFolder = "tests/golden/wire";

template <class Message>
std::string frame_of(std::uint16_t kind) {
  const std::string body = encode_body(sample::filled<Message>());
  FrameHeader header{.session = SessionId{5}, .generation = Generation{3}, .sequence = Sequence{9}};
  header.kind = kind;
  header.length = static_cast<std::uint32_t>(body.size());
  return encode_header(header) + body;
}

// The bodies that are kept of a kind, in all files.
std::vector<std::string> bodies_of(std::uint16_t kind) {
  std::vector<std::string> out;
  for (const Row& row : golden::read_all_rows(kFolder)) {
    if (row.number == kind) out.push_back(row.bytes.substr(kFrameHeaderBytes));
  }
  return out;
}

// Into the file that $TUTTI_GOLDEN_OUT names.
template <class Wanted>
void write_frames(const Wanted& wanted) {
  const char* file = std::getenv("TUTTI_GOLDEN_OUT");
  REQUIRE(file != nullptr);
  std::ofstream out(file);
  out << "# kind, name, frame; made by: TUTTI_GOLDEN_OUT=FILE wire_golden_test \"[write-all]\"\n";
  for_each_kind(
      [&]<class Message>(std::uint16_t kind) {
        if (!wanted.template operator()<Message>(kind)) return;
        golden::write_row(out, {kind, name_of<Message>(), frame_of<Message>(kind)});
      },
      Kinds{});
  CHECK(out.good());
}

void check_frame(const Row& row) {
  const Result<FrameHeader> header = decode_header(row.bytes);
  REQUIRE(header);
  CHECK(header->version == 1);
  CHECK(header->kind == row.number);
  CHECK(header->session == SessionId{5});
  CHECK(header->generation == Generation{3});
  CHECK(header->sequence == Sequence{9});
  const std::string_view body = std::string_view(row.bytes).substr(kFrameHeaderBytes);
  CHECK(body.size() == header->length);
  bool known = false;
  for_each_kind(
      [&]<class Message>(std::uint16_t kind) {
        if (kind != row.number) return;
        known = true;
        INFO("kind " << kind << ", " << row.name);
        CHECK(lost_by<Message>(body) == "");
      },
      Kinds{});
  CHECK(known);
}

}  // namespace

TEST_CASE("golden: every frame that version 1 sent still decodes, with all that it held") {
  REQUIRE(read_rows("tests/golden/wire/v1.txt").size() == 31);
  for (const Row& row : golden::read_all_rows(kFolder)) check_frame(row);
}

TEST_CASE("golden: every field of every kind of frame is kept as it is sent today") {
  for_each_kind(
      [&]<class Message>(std::uint16_t kind) {
        INFO(kind << ' ' << name_of<Message>());
        INFO(golden::how_to_keep(kFolder, "wire_golden_test"));
        CHECK(golden::not_kept<Message>(bodies_of(kind)) == "");
      },
      Kinds{});
}

TEST_CASE("golden: a field that no kept frame has is found") {
  CHECK(golden::not_kept<Refused>({encode_body(Refused{.code = "x", .message = "y"})}) == "");
  CHECK(golden::not_kept<Refused>({}) == ".code");
  constexpr char kOlder[] =
      "\x81\xa4"
      "code\xa1x";
  CHECK(golden::not_kept<Refused>({std::string(kOlder, sizeof kOlder - 1)}) == ".message");
  // A list without an element.
  CHECK(golden::not_kept<Heartbeat>({encode_body(Heartbeat{})}) != "");
}

TEST_CASE("golden: heartbeats with readings of devices still decode, and those without as before") {
  const auto rows = read_rows("tests/golden/wire/heartbeat_readings.txt");
  REQUIRE(rows.size() == 1);
  const std::string_view body = std::string_view(rows[0].bytes).substr(kFrameHeaderBytes);
  CHECK(lost_by<Heartbeat>(body) == "");
  const Result<Heartbeat> heartbeat = decode_body<Heartbeat>(body);
  REQUIRE(heartbeat);
  REQUIRE(heartbeat->readings.size() == 2);
  CHECK(heartbeat->readings[1].links.size() == 2);
  CHECK(heartbeat->readings[1].throttle_reasons.size() == 2);
  CHECK(heartbeat->readings[0].temperature_celsius != 0);
  for (const Row& row : read_rows("tests/golden/wire/v1.txt")) {
    if (row.number != rows[0].number) continue;
    const auto older =
        decode_body<Heartbeat>(std::string_view(row.bytes).substr(kFrameHeaderBytes));
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

TEST_CASE("golden: write the frames that no file has whole", "[.][write]") {
  write_frames([]<class Message>(std::uint16_t kind) {
    return !golden::not_kept<Message>(bodies_of(kind)).empty();
  });
}

TEST_CASE("golden: write all frames of this version", "[.][write-all]") {
  write_frames([]<class Message>(std::uint16_t) { return true; });
}

}  // namespace tutti::wire
