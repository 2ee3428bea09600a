#include "protocol/wire/link.h"

#include <catch2/catch.hpp>

#include "protocol/base/rng.h"
#include "protocol/wire/codec.h"
#include "protocol/wire/untaken.h"

namespace tutti::wire {
namespace {

StartRank start_rank() {
  return {.job = JobId{7},
          .generation = Generation{3},
          .process = ProcessId{41},
          .rank = 1,
          .size = 2,
          .slot = 1,
          .threads = 2,
          .name = "kjv-small",
          .kind = "train",
          .spec = std::string("name: kjv\nkind: train\n\0\xff", 24),
          .folder = "/srv/jobs/7",
          .start_ms_max = 5};
}

Hello hello() {
  Hello out;
  out.worker = "node-a";
  out.memory_bytes = ~std::uint64_t{0};
  out.profiles = {"portable"};
  ProcessState process;
  process.process = ProcessId{41};
  process.phase = ProcessPhase::broken;
  process.held = {.whole = true, .step = 12, .pending = 13};
  out.processes = {process, process};
  RankExited exit;
  exit.code = -1;
  exit.failure = FailureClass::infrastructure;
  exit.seen_unix_ms = -5;
  out.exits = {exit};
  return out;
}

FormGroup form_group() {
  FormGroup out;
  out.addresses = {"unix:/a", "tcp:h:1"};
  out.copies = {{.from = 1, .to = 0}, {.from = 1, .to = 2}};
  return out;
}

RankFinished finished() {
  RankFinished out;
  out.failure = FailureClass::user;
  out.message = "the text is shorter than a sequence";
  return out;
}

Generate generate() {
  Generate out;
  out.prompt = "In the beginning";
  out.tokens = {1, 70'000};
  out.temperature = 0.25;
  out.stop = {"\n"};
  return out;
}

Generated generated() {
  Generated out;
  out.text = "God";
  out.chosen = {{.token = 3, .text = "\xff", .logprob = -0.5f}};
  return out;
}

template <class Link>
void check_round_trip(const Link& message) {
  const FrameHeader header{
      .session = SessionId{5}, .generation = Generation{3}, .sequence = Sequence{9}};
  const Result<std::string> bytes = encode_frame<Link>(message, header);
  REQUIRE(bytes.ok());
  FrameCounters counters;
  const Result<Decoded<Link>> decoded = decode_frame<Link>(*bytes, counters);
  REQUIRE(decoded.ok());
  CHECK(decoded->message == message);
  CHECK(decoded->header.session == SessionId{5});
  CHECK(decoded->header.sequence == Sequence{9});
  CHECK(counters.taken == 1);
  CHECK(counters.refused() == 0);
}

// A struct as another version of the program may have it: one field less, two more.
struct RegroupOfAnotherVersion {
  JobId job;
  std::vector<std::string> hints;
  std::uint32_t size = 0;
  HeldState held;
};
BOOST_DESCRIBE_STRUCT(RegroupOfAnotherVersion, (), (job, hints, size, held))

struct RegroupOfWrongType {
  std::string job;
};
BOOST_DESCRIBE_STRUCT(RegroupOfWrongType, (), (job))

struct Everything {
  std::map<std::string, std::uint64_t> counts;
  std::optional<double> share;
  std::optional<std::string> note;
  Duration wait{};
  WallTime at;
  float loss = 0;
  std::int8_t small = 0;

  bool operator==(const Everything&) const = default;
};
BOOST_DESCRIBE_STRUCT(Everything, (), (counts, share, note, wait, at, loss, small))

TEST_CASE("wire: messages of every link come back as they were sent") {
  check_round_trip<ToWorker>(start_rank());
  check_round_trip<ToWorker>(HeartbeatAnswered{});
  check_round_trip<FromWorker>(hello());
  check_round_trip<ToRank>(form_group());
  check_round_trip<FromRank>(finished());
  check_round_trip<ToServer>(generate());
  check_round_trip<FromServer>(generated());
  const Everything everything{.counts = {{"a", 1}, {"b", 1u << 20}},
                              .share = 0.5,
                              .note = std::nullopt,
                              .wait = std::chrono::nanoseconds(-3),
                              .at = {.unix_ms = 1'700'000'000'000},
                              .loss = 2.5f,
                              .small = -128};
  CHECK(*decode_body<Everything>(encode_body(everything)) == everything);
}

TEST_CASE("wire: a message is named by its type") {
  CHECK(message_name<ToWorker>(start_rank()) == "StartRank");
  CHECK(message_name<FromServer>(Generated{}) == "Generated");
}

TEST_CASE("wire: unknown fields are ignored and missing ones keep their default") {
  const RegroupOfAnotherVersion other{.job = JobId{7},
                                      .hints = {"a", "b"},
                                      .size = 4,
                                      .held = {.whole = true, .step = 1, .pending = 0}};
  const Result<Regroup> decoded = decode_body<Regroup>(encode_body(other));
  REQUIRE(decoded.ok());
  Regroup expected;
  expected.job = JobId{7};
  expected.size = 4;
  CHECK(*decoded == expected);
  CHECK(decode_body<StartRank>(encode_body(Regroup{}))->start_ms_max == 60'000);
}

TEST_CASE("wire: a field of the wrong type is an error that names the field") {
  const Result<Regroup> decoded = decode_body<Regroup>(encode_body(RegroupOfWrongType{"seven"}));
  REQUIRE_FALSE(decoded.ok());
  CHECK(decoded.error().code == ErrorCode::corrupt);
  CHECK(decoded.error().message.find("job") != std::string::npos);
}

struct Refusal {
  std::string bytes;
  ErrorCode code;
  std::atomic<std::uint64_t> FrameCounters::*counter;
};

TEST_CASE("wire: each kind of bad frame gets its error and its counter") {
  const std::string good = *encode_frame<ToWorker>(start_rank());
  const auto with_byte = [&](std::size_t at, char value) {
    std::string bytes = good;
    bytes[at] = value;
    return bytes;
  };
  const Refusal refusals[] = {
      {"", ErrorCode::corrupt, &FrameCounters::truncated},
      {good.substr(0, 39), ErrorCode::corrupt, &FrameCounters::truncated},
      {good.substr(0, good.size() - 1), ErrorCode::corrupt, &FrameCounters::truncated},
      {good + "x", ErrorCode::corrupt, &FrameCounters::truncated},
      {std::string(100, 'x'), ErrorCode::corrupt, &FrameCounters::bad_magic},
      {with_byte(4, 9), ErrorCode::unsupported, &FrameCounters::bad_version},
      {with_byte(6, 77), ErrorCode::unsupported, &FrameCounters::unknown_kind},
      {*encode_frame<FromWorker>(Hello{}), ErrorCode::unsupported, &FrameCounters::unknown_kind},
      {with_byte(35, 127), ErrorCode::exhausted, &FrameCounters::oversized},
      {std::string(kFrameBytesMax + 1, '\0'), ErrorCode::exhausted, &FrameCounters::oversized},
      {with_byte(40, '\xc1'), ErrorCode::corrupt, &FrameCounters::bad_body},
  };
  for (const Refusal& refusal : refusals) {
    FrameCounters counters;
    const auto decoded = decode_frame<ToWorker>(refusal.bytes, counters);
    REQUIRE_FALSE(decoded.ok());
    CHECK(decoded.error().code == refusal.code);
    CHECK(counters.*refusal.counter == 1);
    CHECK(counters.refused() == 1);
    CHECK(counters.taken == 0);
  }
}

TEST_CASE("wire: a message that does not fit into a frame is refused where it is made") {
  StartRank large = start_rank();
  large.spec.assign(kFrameBytesMax, 'x');
  const auto encoded = encode_frame<ToWorker>(large);
  REQUIRE_FALSE(encoded.ok());
  CHECK(encoded.error().code == ErrorCode::exhausted);
}

TEST_CASE("wire: nesting without end and lengths without content are refused") {
  std::string nested(1000, '\x91');  // an array of one array of ...
  CHECK_FALSE(decode_body<Regroup>("\x81\xa1x" + nested).ok());
  CHECK(decode_body<Regroup>("\x81\xa1x" + nested + '\x01')
            .ok());  // as an unknown field: skipped without recursion
  // Two maps of 2^31 - 1 pairs overflow a 32-bit count of open items.
  CHECK_FALSE(
      decode_body<Regroup>(std::string("\x81\xa1x\xdf\x7f\xff\xff\xff\xdf\x7f\xff\xff\xff\x01", 14))
          .ok());
  CHECK_FALSE(decode_body<Hello>(std::string("\x81\xa9processes\xdd\xff\xff\xff\xff", 16)).ok());
  // Four million empty processes in four mebibytes would fill gigabytes.
  std::string many("\x81\xa9processes\xdd\x00\x3f\xff\x00", 16);
  many.append(0x3fff00, '\x80');
  const auto refused = decode_body<Hello>(many);
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.error().message.find("too long") != std::string::npos);
}

// One of: a few bytes overwritten, cut, extended, a part repeated, or noise throughout.
std::string mutated(const std::string& frame, Rng& rng) {
  std::string out = frame;
  const auto any_byte = [&] { return static_cast<char>(rng.below(256)); };
  switch (rng.below(6)) {
    case 0: out.resize(rng.below(out.size() + 1)); break;
    case 1: out.append(1 + rng.below(64), any_byte()); break;
    case 2: {
      const std::size_t from = rng.below(out.size());
      out.insert(from, out.substr(from, rng.below(32)));
      break;
    }
    case 3:
      for (char& byte : out) byte = any_byte();
      break;
    default: break;
  }
  for (std::uint64_t i = rng.below(8); i > 0 && !out.empty(); --i)
    out[rng.below(out.size())] = any_byte();
  // Half of them keep a header that agrees, so that the body is what is tried.
  if (rng.chance(0.5) && out.size() > kFrameHeaderBytes) {
    const auto length = static_cast<std::uint32_t>(out.size() - kFrameHeaderBytes);
    Result<FrameHeader> header = decode_header(frame);
    header->length = length;
    out.replace(0, kFrameHeaderBytes, encode_header(*header));
  }
  return out;
}

template <class Link>
void check_mutations(const Link& message, std::uint64_t seed, int count) {
  const std::string frame = *encode_frame<Link>(message);
  Rng rng(seed);
  FrameCounters counters;
  std::uint64_t refused = 0;
  for (int i = 0; i < count; ++i) {
    const auto decoded = decode_frame<Link>(mutated(frame, rng), counters);
    if (decoded) {
      // What was taken can be said again.
      REQUIRE(encode_frame<Link>(decoded->message, decoded->header).ok());
    } else {
      ++refused;
    }
  }
  CHECK(counters.refused() == refused);
  CHECK(counters.taken + refused == static_cast<std::uint64_t>(count));
  CHECK(refused > 0);
}

TEST_CASE("wire: a hundred thousand mutated frames are taken or refused, never more") {
  check_mutations<FromWorker>(hello(), 1, 40'000);
  check_mutations<ToWorker>(start_rank(), 2, 20'000);
  check_mutations<ToRank>(form_group(), 3, 10'000);
  check_mutations<FromRank>(finished(), 4, 10'000);
  check_mutations<ToServer>(generate(), 5, 10'000);
  check_mutations<FromServer>(generated(), 6, 10'000);
}

// Of one that decode_frame refuses: what a receiver can still say of it.
TEST_CASE("wire: of a numbered frame that is not understood the number can be taken") {
  FrameCounters counters;
  const auto made_up = [](std::string frame) {
    constexpr std::uint16_t kMadeUp = 999;
    frame[6] = static_cast<char>(kMadeUp & 0xff);
    frame[7] = static_cast<char>(kMadeUp >> 8);
    return frame;
  };
  FrameHeader numbered;
  numbered.session = SessionId{5};
  numbered.sequence = Sequence{12};
  const std::string good = *encode_frame<ToWorker>(start_rank(), numbered);
  const std::string unknown = made_up(good);
  CHECK(decode_frame<ToWorker>(unknown, counters).error().message.find("kind 999") !=
        std::string::npos);
  const auto header = header_of_untaken(unknown);
  REQUIRE(header);
  CHECK(header->session == SessionId{5});
  CHECK(header->sequence == Sequence{12});
  // A known kind whose body another version writes otherwise.
  std::string other = good;
  other[kFrameHeaderBytes] = static_cast<char>(0xc1);
  CHECK_FALSE(decode_frame<ToWorker>(other, counters));
  CHECK(header_of_untaken(other));
  // Nothing that is cut short or has no number.
  CHECK_FALSE(header_of_untaken(unknown.substr(0, unknown.size() - 1)));
  CHECK_FALSE(header_of_untaken(unknown + "x"));
  CHECK_FALSE(header_of_untaken(unknown.substr(0, 20)));
  CHECK_FALSE(header_of_untaken(made_up(*encode_frame<ToWorker>(start_rank()))));
}

}  // namespace
}  // namespace tutti::wire
