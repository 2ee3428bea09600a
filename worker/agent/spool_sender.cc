#include "worker/agent/spool_sender.h"

#include <algorithm>

#include "protocol/wire/frame.h"

namespace tutti::worker {

void SpoolSender::open(const Owner& owner) { spools_[owner.process].owner = owner; }

SpoolSender::StreamState* SpoolSender::find(ProcessId process, wire::Stream stream) {
  const auto at = spools_.find(process);
  if (at == spools_.end()) return nullptr;
  return &at->second.streams[stream == wire::Stream::log ? 0 : 1];
}

void SpoolSender::grew(const SpoolGrew& input) {
  StreamState* stream = find(input.process, input.stream);
  if (stream != nullptr) stream->size = std::max(stream->size, input.size);
}

void SpoolSender::end(Spool& spool) {
  if (!std::exchange(spool.ended, true)) ++ended_;
}

void SpoolSender::ended(ProcessId process) {
  const auto at = spools_.find(process);
  if (at != spools_.end()) end(at->second);
}

void SpoolSender::look_after_busy(Instant now) {
  std::erase_if(busy_, [&](const auto& key) {
    const auto at = spools_.find(key.first);
    if (at == spools_.end()) return true;
    StreamState& stream = at->second.streams[key.second];
    if (stream.in_flight && now - stream.sent_at >= kResendAfter) stream.in_flight = false;
    return !stream.busy();
  });
}

std::vector<ReadSpool> SpoolSender::due(Instant now) {
  std::vector<ReadSpool> out;
  look_after_busy(now);
  for (auto at = spools_.begin(); at != spools_.end() && busy_.size() < kInFlightMax; ++at) {
    auto& [process, spool] = *at;
    for (std::size_t i = 0; i < spool.streams.size() && busy_.size() < kInFlightMax; ++i) {
      StreamState& stream = spool.streams[i];
      if (stream.busy() || stream.done) continue;
      if (stream.acked >= stream.size && !spool.ended) continue;
      stream.reading = true;
      busy_.emplace(process, i);
      out.push_back({.process = process,
                     .stream = i == 0 ? wire::Stream::log : wire::Stream::steps,
                     .offset = stream.acked,
                     .bytes_max = std::min<std::uint64_t>(stream.size - stream.acked,
                                                          wire::kSpoolChunkBytesMax)});
    }
  }
  return out;
}

std::optional<wire::SpoolData> SpoolSender::read(const SpoolRead& input, Instant now) {
  StreamState* stream = find(input.process, input.stream);
  if (stream == nullptr || !stream->reading) return std::nullopt;
  stream->reading = false;
  if (stream->done || input.offset != stream->acked) return std::nullopt;
  const Spool& spool = spools_.at(input.process);
  wire::SpoolData chunk{.job = spool.owner.job,
                        .generation = spool.owner.generation,
                        .process = input.process,
                        .rank = spool.owner.rank,
                        .stream = input.stream,
                        .offset = input.offset,
                        .bytes = input.bytes,
                        .end = false,
                        .cut = false};
  if (input.stream == wire::Stream::steps) {
    // What an earlier worker sent may be a hole by now, of zeros and without a line: it goes as it
    // is, and its acknowledgement leads to what follows.
    const std::size_t hole = std::min(chunk.bytes.find_first_not_of('\0'), chunk.bytes.size());
    // npos + 1 is 0: no whole line.
    chunk.bytes.resize(std::max(hole, chunk.bytes.rfind('\n') + 1));
  }
  stream->in_flight = true;
  stream->sent_at = now;
  chunk.end = spool.ended && input.offset + chunk.bytes.size() == stream->size;
  chunk.cut = chunk.end && spool.owner.cut && input.stream == wire::Stream::log;
  // Nothing readable although something should be there: the wait for an answer spaces the next
  // try.
  if (chunk.bytes.empty() && !chunk.end) return std::nullopt;
  return chunk;
}

std::optional<TruncateSpool> SpoolSender::acked(const wire::SpoolAcked& message) {
  StreamState* stream = find(message.process, message.stream);
  if (stream == nullptr) return std::nullopt;
  const std::uint64_t offset = std::min(message.offset, stream->size);
  const Spool& spool = spools_.at(message.process);
  if (message.end && spool.ended && offset == stream->size) {
    stream->done = true;
    stream->in_flight = false;
  }
  // Not beyond what is known: a repeated answer; the chunk in flight has its own.
  if (offset <= stream->acked) return std::nullopt;
  stream->in_flight = false;
  stream->acked = offset;
  return TruncateSpool{.process = message.process, .stream = message.stream, .offset = offset};
}

void SpoolSender::restart() {
  for (auto& [process, spool] : spools_) {
    for (StreamState& stream : spool.streams) stream.in_flight = false;
  }
}

bool SpoolSender::done(ProcessId process) const {
  const auto at = spools_.find(process);
  if (at == spools_.end()) return false;
  return std::all_of(at->second.streams.begin(), at->second.streams.end(),
                     [](const StreamState& stream) { return stream.done; });
}

bool SpoolSender::silence(ProcessId process) {
  const auto at = spools_.find(process);
  if (at == spools_.end() || !at->second.ended) return false;
  for (const StreamState& stream : at->second.streams) {
    if (stream.size != 0) return false;
  }
  for (StreamState& stream : at->second.streams) stream.done = true;
  return true;
}

std::vector<SavedSpool> SpoolSender::save() const {
  const auto saved = [](const StreamState& stream) {
    return SavedStream{.size = stream.size, .acked = stream.acked, .done = stream.done};
  };
  std::vector<SavedSpool> out;
  for (const auto& [process, spool] : spools_) {
    out.push_back({.job = spool.owner.job,
                   .generation = spool.owner.generation,
                   .process = process,
                   .rank = spool.owner.rank,
                   .log = saved(spool.streams[0]),
                   .steps = saved(spool.streams[1]),
                   .ended = spool.ended,
                   .cut = spool.owner.cut});
  }
  return out;
}

void SpoolSender::restore(const SavedSpool& saved) {
  Spool& spool = spools_[saved.process];
  spool.owner = {.job = saved.job,
                 .generation = saved.generation,
                 .process = saved.process,
                 .rank = saved.rank,
                 .cut = saved.cut};
  if (saved.ended) end(spool);
  std::size_t at = 0;
  for (const SavedStream* stream : {&saved.log, &saved.steps}) {
    StreamState& into = spool.streams[at++];
    into.size = stream->size;
    into.acked = stream->acked;
    into.done = stream->done;
  }
}

void SpoolSender::forget(ProcessId process) {
  const auto at = spools_.find(process);
  if (at == spools_.end()) return;
  if (at->second.ended) --ended_;
  spools_.erase(at);
}

}  // namespace tutti::worker
