// Greetings over a socket that does not block, and the memory that may come along with an answer.
#pragma once

#include <cstddef>

#include "kernels/collective/handshake.h"
#include "protocol/base/file.h"

namespace tutti::kernels {

// A connection whose greeting is still coming in.
struct Incoming {
  FileDescriptor socket;
  Greeting greeting;
  std::size_t got = 0;
  FileDescriptor memory = {};  // that came with it
};

enum class Reading { more, complete, closed };

// From someone who has proved nothing yet: a descriptor that comes along is not taken.
Reading read_greeting(Incoming& incoming);
// From a rank that was dialled. What comes along counts only once the greeting is judged.
Reading read_answer(Incoming& incoming);

// A fresh socket's buffer takes a greeting whole; a socket that does not is as good as closed.
bool write_greeting(const FileDescriptor& socket, const Greeting& greeting);
bool write_answer(const FileDescriptor& socket, const Greeting& greeting,
                  const FileDescriptor& memory);

}  // namespace tutti::kernels
