// Frames of every link: header, kind, body.
#include "protocol/wire/link.h"
#include "protocol/wire/untaken.h"
#include "tests/fuzz/targets.h"
#include "tests/support/sample.h"

namespace tutti::fuzz {

namespace {

template <class Link>
bool take_frame(std::string_view bytes) {
  wire::FrameCounters counters;
  const auto decoded = wire::decode_frame<Link>(bytes, counters);
  if (!decoded) {
    const auto header = wire::header_of_untaken(bytes);
    require(!header || header->sequence, "a number that there is not");
    require(!decoded.error().message.empty(), "an error without a message");
    return false;
  }
  const Result<std::string> again = wire::encode_frame<Link>(decoded->message, decoded->header);
  require(again.ok(), "a frame that was taken cannot be made");
  const auto twice = wire::decode_frame<Link>(*again, counters);
  require(twice.ok(), "a frame that was made is not taken");
  // Not compared as values: a NaN is not equal to itself.
  require(*wire::encode_frame<Link>(twice->message, twice->header) == *again,
          "a frame changes on its way");
  return true;
}

}  // namespace

bool take_worker_frame(std::string_view bytes) { return take_frame<wire::FromWorker>(bytes); }
bool take_coordinator_frame(std::string_view bytes) { return take_frame<wire::ToWorker>(bytes); }
bool take_rank_frame(std::string_view bytes) {
  const bool from = take_frame<wire::FromRank>(bytes);
  return take_frame<wire::ToRank>(bytes) || from;
}
bool take_serve_frame(std::string_view bytes) {
  const bool to = take_frame<wire::ToServer>(bytes);
  return take_frame<wire::FromServer>(bytes) || to;
}

// Each kind twice: with every field set, and with none. A target refuses those of other links.
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
