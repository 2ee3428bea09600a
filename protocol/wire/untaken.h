// What becomes of a numbered frame that this version does not understand.
//
// Orders and reports are numbered, and what follows a number that was never taken stays a gap
// (sequencer.h). A newer peer may say what this version does not know: its number is taken, and
// what it says is ignored, so that the peer's other words still count.
#pragma once

#include <optional>
#include <string_view>

#include "protocol/wire/frame.h"

namespace tutti::wire {

// Of a frame that decode_frame refused: its header, if the frame is whole and numbered, which makes
// it one of an unknown kind, or with a body that does not decode.
std::optional<FrameHeader> header_of_untaken(std::string_view bytes);

}  // namespace tutti::wire
