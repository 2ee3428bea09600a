// Frames of every link: header, kind, body.
#include "protocol/wire/link.h"
#include "protocol/wire/untaken.h"
#include "tests/fuzz/targets.h"
#include "tests/support/sample.h"

namespace tutti::fuzz {

namespace {

template <class Link>
void take_frame(std::string_view bytes) {
  wire::FrameCounters counters;
  const auto decoded = wire::decode_frame<Link>(bytes, counters);
  if (!decoded) {
    const auto header = wire::header_of_untaken(bytes);
    require(!header || header->sequence, "a number that there is not");
    return require(!decoded.error().message.empty(), "an error without a message");
  }
  const Result<std::string> again = wire::encode_frame<Link>(decoded->message, decoded->header);
  require(again.ok(), "a frame that was taken cannot be made");
  const auto twice = wire::decode_frame<Link>(*again, counters);
  require(twice.ok(), "a frame that was made is not taken");
  // Not compared as values: a NaN is not equal to itself.
  require(*wire::encode_frame<Link>(twice->message, twice->header) == *again,
          "a frame changes on its way");
}

}  // namespace

void take_worker_frame(std::string_view bytes) { take_frame<wire::FromWorker>(bytes); }
void take_coordinator_frame(std::string_view bytes) { take_frame<wire::ToWorker>(bytes); }
void take_rank_frame(std::string_view bytes) {
  take_frame<wire::FromRank>(bytes);
  take_frame<wire::ToRank>(bytes);
}
void take_serve_frame(std::string_view bytes) {
  take_frame<wire::ToServer>(bytes);
  take_frame<wire::FromServer>(bytes);
}

// Each kind twice: with every field set, and with none.
std::vector<std::string> frame_seeds() {
  std::vector<std::string> out;
  sample::for_each_kind(
      [&]<class Message>(std::uint16_t kind) {
        for (const Message& message : {sample::filled<Message>(), Message()}) {
          const std::string body = wire::encode_body(message);
          wire::FrameHeader header;
          header.session = SessionId{7};
          header.kind = kind;
          header.length = static_cast<std::uint32_t>(body.size());
          out.push_back(wire::encode_header(header) + body);
        }
      },
      wire::Kinds{});
  return out;
}

}  // namespace tutti::fuzz
