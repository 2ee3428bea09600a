// Messages of a link <-> frames. One closed variant per direction; instantiated in link_*.cc, so
// that including this is cheap.
//
//   auto bytes = encode_frame<ToWorker>(StartRank{...}, {.session = session, .sequence = number});
//   auto frame = decode_frame<FromWorker>(bytes, counters);   // frame->header, frame->message
//
// Errors of decode_frame are those of frame.h, each with its counter: never a crash, never a part
// of a message. A sender that must not be believed yet is the caller's to check (session,
// generation). Limits: a body's strings, arrays and nesting are bounded (codec.h); a frame is at
// most kFrameBytesMax.
#pragma once

#include <string>
#include <string_view>

#include "protocol/base/result.h"
#include "protocol/wire/counters.h"
#include "protocol/wire/frame.h"
#include "protocol/wire/rank_messages.h"
#include "protocol/wire/serve_messages.h"
#include "protocol/wire/worker_messages.h"

namespace tutti::wire {

template <class Link>
struct Decoded {
  FrameHeader header;
  Link message;

  bool operator==(const Decoded&) const = default;
};

// The whole frame; `kind` and `length` of the header are filled in. Errors: exhausted above
// kFrameBytesMax.
template <class Link>
Result<std::string> encode_frame(const Link& message, FrameHeader header = {});

// Exactly one frame.
template <class Link>
Result<Decoded<Link>> decode_frame(std::string_view bytes, FrameCounters& counters);

// Name of the message that it holds ("StartRank"), for logs.
template <class Link>
std::string_view message_name(const Link& message);

}  // namespace tutti::wire
