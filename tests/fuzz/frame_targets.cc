// Frames of every link: header, kind, body.
#include "protocol/wire/link.h"
#include "tests/fuzz/targets.h"

namespace tutti::fuzz {

namespace {

template <class Link>
void take_frame(std::string_view bytes) {
  wire::FrameCounters counters;
  const auto decoded = wire::decode_frame<Link>(bytes, counters);
  if (!decoded) return require(!decoded.error().message.empty(), "an error without a message");
  const Result<std::string> again = wire::encode_frame<Link>(decoded->message, decoded->header);
  require(again.ok(), "a frame that was taken cannot be made");
  const auto twice = wire::decode_frame<Link>(*again, counters);
  require(twice.ok(), "a frame that was made is not taken");
  // Not compared as values: a NaN is not equal to itself.
  require(*wire::encode_frame<Link>(twice->message, twice->header) == *again,
          "a frame changes on its way");
}

template <class Link, class Message>
void add(std::vector<std::string>& out, const Message& message) {
  wire::FrameHeader header;
  header.session = SessionId{7};
  Result<std::string> frame = wire::encode_frame<Link>(message, header);
  require(frame.ok(), "a seed cannot be made");
  out.push_back(*std::move(frame));
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

std::vector<std::string> frame_seeds() {
  std::vector<std::string> out;
  wire::Hello hello;
  hello.worker = "node-1";
  hello.incarnation = "a";
  hello.profiles = {"portable"};
  hello.processes.resize(2);
  hello.exits.resize(1);
  add<wire::FromWorker>(out, hello);
  wire::SpoolData data;
  data.bytes = std::string("log\0\n", 5);
  add<wire::FromWorker>(out, data);
  wire::RankProgress progress;
  progress.phase = "forward";
  add<wire::FromWorker>(out, wire::Heartbeat{{progress}});
  wire::FormGroup group;
  group.addresses = {"unix:/a", "unix:/b"};
  group.copies = {{.from = 0, .to = 1}};
  add<wire::ToWorker>(out, group);
  wire::StartRank start;
  start.spec = "kind: run";
  add<wire::ToWorker>(out, start);
  wire::CheckpointPart part;
  part.files = {{.name = "part", .bytes = 9, .hash = "00"}};
  add<wire::FromRank>(out, part);
  wire::Generate generate;
  add<wire::ToServer>(out, generate);
  wire::Generated generated;
  generated.text = "text";
  generated.tokens = {1, 2};
  generated.chosen.resize(1);
  add<wire::FromServer>(out, generated);
  return out;
}

}  // namespace tutti::fuzz
